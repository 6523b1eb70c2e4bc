"""A copy of a run's folder in a bucket: what is written here first goes there, and comes back from there."""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from data_loader.video.base import VideoReadError
from data_loader.video.sources import check_protocol, tried
from trainer.checkpoint import is_whole, list_checkpoints, newest_first, remove
from utils.errors import RunError
from utils.files import RunWriteError, unfinished_name

logger = logging.getLogger(__name__)

FETCHED = ("metrics.jsonl", "log.txt", "starts.jsonl", "model_best.pth", "model_best.json", "wandb-id.txt")
LEFT_HERE = ("wandb", "evaluations")
State = tuple[int, int]  # of a file: size and time of change


class Bucket:
    """Keeps `url`/`name` as the run's folder is, by a thread of rank 0.

    `update` starts a copying of what is new, and removes there the checkpoints that were removed here, also
    by an earlier process of the run: of those that are not here as many stay as `keep` allows in all (None:
    all). What fails is tried again with the next; the end of the context waits for all. A context manager.

    Raises ValueError where nothing that is installed opens such URLs.
    """

    def __init__(self, url: str, run_dir: Path, name: str, keep: int | None = None):
        import fsspec

        check_protocol(url)
        self.url, self.run_dir, self.keep = f"{url.rstrip('/')}/{name}", run_dir, keep
        self.system, self.root = fsspec.core.url_to_fs(self.url)
        self.thread = ThreadPoolExecutor(1, "bucket")
        self.job: Future[None] | None = None
        self.copied: dict[str, State] = {}  # by name below the folder
        self.earlier: set[str] | None = None  # checkpoints that were there before; None: not asked for yet

    def update(self) -> None:
        """Start copying, unless that is under way: then what is new waits for the next call."""
        if self.job is None or self.job.done():
            self.job = self.thread.submit(self._try)

    def _try(self) -> None:
        try:
            self.copy()
        except Exception as error:  # noqa: BLE001 (each file system has errors of its own)
            logger.warning("%s: not all could be copied there, it is tried again: %s", self.url, error)

    def copy(self) -> None:
        """Make the bucket as the folder is now."""
        if self.earlier is None:
            self.earlier = {*self.checkpoints()}
        for path in self.files():
            name = str(path.relative_to(self.run_dir))
            try:
                state = path.stat().st_size, path.stat().st_mtime_ns
                if self.copied.get(name) != state:
                    self.tried(partial(self.put, path, f"{self.root}/{name}"))
                    self.copied[name] = state
            except FileNotFoundError:  # an old checkpoint, removed meanwhile
                continue
            except RunError:
                if path.exists():
                    raise
        here = {path.name for path in list_checkpoints(self.run_dir)}
        gone = {name.split("/")[0] for name in self.copied if name.startswith("checkpoint-")}
        if self.keep is not None:
            gone |= {*newest_first([*self.earlier | here])[self.keep :]}
        for name in gone - here:
            self.tried(partial(self.system.rm, f"{self.root}/{name}", recursive=True))
            self.copied = {k: v for k, v in self.copied.items() if k.split("/")[0] != name}
            self.earlier.discard(name)

    def tried(self, call: Callable[[], Any]) -> Any:
        """What `call` gives, tried again where a connection breaks. Raises RunError."""
        try:
            return tried(self.url, call)
        except VideoReadError as error:
            raise RunError(str(error)) from error

    def put(self, path: Path, target: str) -> None:
        self.system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.system.put_file(str(path), target)

    def files(self) -> Iterator[Path]:
        """What is copied: not what is half-written, the lock, wandb's own, or vectors to evaluate."""
        for folder, folders, names in os.walk(self.run_dir):
            folders[:] = [name for name in folders if not name.startswith(".") and name not in LEFT_HERE]
            paths = (Path(folder, name) for name in names if not name.startswith(".") and name != "lock")
            yield from sorted(paths)

    def checkpoints(self) -> list[str]:
        """The checkpoints in the bucket, the one furthest in training first."""

        def names() -> list[str]:
            self.system.invalidate_cache()
            if not self.system.isdir(self.root):
                return []
            return [
                str(each).rstrip("/").rpartition("/")[2] for each in self.system.ls(self.root, detail=False)
            ]

        found: list[str] = self.tried(names)
        return newest_first(found)

    def fetch_newest(self) -> None:
        """Bring the newest whole checkpoint here, and the run's logs, if it is further than those here.

        Raises RunWriteError: they cannot be written; RunError: the bucket cannot be read.
        """
        here = [path.name for path in list_checkpoints(self.run_dir) if is_whole(path)]
        for name in self.checkpoints():
            if newest_first([name, *here])[0] != name or name in here:
                return
            self.fetch(name)
            if is_whole(self.run_dir / name):
                for log in FETCHED:
                    self.fetch(log)
                logger.info("fetched %s from %s", name, self.url)
                return
            logger.warning("passing over %s/%s: it is not whole", self.url, name)
            remove(self.run_dir / name)

    def fetch(self, name: str) -> None:
        """A file or folder of the bucket, if it is there."""
        target = self.run_dir / name
        unfinished = unfinished_name(target)

        def get() -> None:
            if unfinished.exists():  # of a try that failed: a folder would be put into it
                remove(unfinished)
            if self.system.exists(f"{self.root}/{name}"):
                self.system.get(f"{self.root}/{name}", str(unfinished), recursive=True)

        self.tried(get)
        try:
            if unfinished.exists():
                if target.is_dir():  # a damaged checkpoint
                    remove(target)
                unfinished.replace(target)
        except OSError as error:
            raise RunWriteError.of(target, error) from error

    def __enter__(self) -> "Bucket":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Copy the last. Raises RunError where that fails and the run does not end by an error already."""
        self.thread.shutdown()
        try:
            self.copy()
        except Exception as failure:
            said = f"{self.url} lacks the last of {self.run_dir}, copy it by hand: {failure}"
            if error is None:
                raise RunError(said) from failure
            logger.error(said)
