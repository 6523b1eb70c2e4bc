"""What all video data sets share: from a key to frames, crop, mask and text; what becomes of a broken
file."""

import logging
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from data_loader.failures import Failure
from data_loader.lists import need_folder, prepare_hint
from data_loader.masking import tube_mask
from data_loader.sampling import sample_frames
from data_loader.transforms import clip_transform, pad_clip
from data_loader.video import FrameCache, VideoReadError, read_frames

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
TRIES = 10  # samples tried in training before giving up: one broken file is chance, ten in a row are not

FrameChoice = Callable[[int, np.random.Generator], list[int]]  # from the number of frames to those wanted


def known_reader(reader: str) -> str:
    """The reader to use for a config's: "cv2", the release's for YT-Temporal alone, becomes the default.

    OpenCV's frames are short or repeated on damaged and cut files, without a word; its seeks are slow.
    """
    if reader == "cv2":
        logger.warning("reader cv2 is read as pyav: OpenCV repeats or drops frames of some files silently")
        return "pyav"
    return reader


class VideoDataset(Dataset):
    """Videos with texts. A subclass fills in the records and says which text belongs to a video.

    Splits: "train" draws random frames, one random crop and a tube mask; "val" (validation during training)
    random frames, the centre crop and a tube mask; "test" uniform frames, the centre crop, all patches.
    `view` takes the records of one split with the clips of another, e.g. training lists with test clips for
    a linear probe.

    An item is a dict: "video" uint8 [num_frames, 3, image_size, image_size], zeros from frame
    "valid_frames" (int) on; "text" list[str], K of them; "keep_ind" int64 [n], patches kept (only with a
    mask); "index" int; "id" str; "failures" list of Failures, the files that this sample replaces.

    A key is an index, or (epoch, index). All that is random in a sample is drawn from a generator seeded by
    (seed, data set, epoch, index), so a sample does not depend on the rank, the worker or what came before.

    `reader` and `timeout` (seconds a file) are those of `read_frames`; `cache_mb` is memory for decoded small
    videos, in every worker.

    A file that cannot be read is replaced in "train" by another sample, drawn from the same generator. In
    "val" it gives {"index", "id", "missing": Failure}, so that no sample counts twice; in "test" it raises
    VideoReadError, or with `allow_missing` gives the same.
    """

    name = "videos"

    def __init__(
        self,
        split: str,
        *,
        root: str | Path,
        meta: str | Path = "meta_data",
        num_frames: int = 12,
        image_size: int = 224,
        mask_ratio: float | None = None,
        num_patches: int | None = None,
        reader: str = "pyav",
        timeout: float | None = None,
        cache_mb: float = 0,
        seed: int = 0,
        allow_missing: bool = False,
        view: str | None = None,
    ):
        view = view or split
        for value in (split, view):
            if value not in SPLITS:
                raise ValueError(f"unknown split {value!r}: choose one of {', '.join(SPLITS)}")
        if mask_ratio and num_patches is None:
            raise ValueError("a mask ratio needs num_patches, the number of patches of a frame")
        self.split, self.view = split, view
        self.root, self.meta = Path(root), Path(meta)
        self.num_frames, self.image_size = num_frames, image_size
        self.mask_ratio = mask_ratio if view != "test" else None
        self.num_patches = num_patches
        self.reader, self.timeout = known_reader(reader), timeout
        self.cache = FrameCache(int(cache_mb * 2**20)) if cache_mb else None
        self.seed, self.salt = seed, zlib.crc32(self.name.encode())
        self.allow_missing = allow_missing
        self.transform = clip_transform(view, image_size)
        need_folder(
            self.root,
            f'the data of {self.name}; put it there or set its "root" in the config',
            "" if self.name == "csv" else prepare_hint(self.name, "its lists"),
        )

    # What a subclass provides.

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} does not say how long it is")

    def video_path(self, index: int) -> Path:
        """The file of a video."""
        raise TypeError(f"{type(self).__name__} does not say where its videos are")

    def video_id(self, index: int) -> str:
        """The name of a video in its data set."""
        return str(self.video_path(index).relative_to(self.root))

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        """The K texts of a sample."""
        return []

    @contextmanager
    def video_file(self, index: int):
        """A path that a reader can open while the context lasts (data in shards is unpacked for so long)."""
        yield self.video_path(index)

    # The common way from there to an item.

    def choose_frames(self, vlen: int, rng: np.random.Generator) -> list[int]:
        """The frames to take from a file of `vlen` frames."""
        return sample_frames(self.num_frames, vlen, "uniform" if self.view == "test" else "rand", rng)

    def read(self, index: int, rng: np.random.Generator, choose: FrameChoice | None = None) -> dict:
        """The video part of an item; `choose` in place of `choose_frames`."""
        choose = choose or self.choose_frames
        seed = int(rng.integers(2**63))  # a reader may ask twice and should get the same answer

        def chosen(vlen: int) -> list[int]:
            return choose(vlen, np.random.default_rng(seed))

        with self.video_file(index) as path:
            frames, _, _ = read_frames(path, chosen, self.reader, self.timeout, self.cache)
        video, valid = pad_clip(self.transform(frames, rng), self.num_frames)
        item = {"video": video, "valid_frames": valid}
        if self.mask_ratio:
            item["keep_ind"] = tube_mask(self.num_patches, self.mask_ratio, rng)
        return item

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        """An item without its failures. Raises VideoReadError."""
        return {
            **self.read(index, rng),
            "text": self.texts(index, rng),
            "index": index,
            "id": self.video_id(index),
        }

    def __getitem__(self, key: int | tuple[int, int]) -> dict:
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, self.salt, epoch, index])
        return self.training_item(index, rng) if self.view == "train" else self.evaluation_item(index, rng)

    def evaluation_item(self, index: int, rng: np.random.Generator) -> dict:
        try:
            return {**self.sample(index, rng), "failures": []}
        except VideoReadError as error:
            if self.view == "test" and not self.allow_missing:
                raise
            return {"index": index, "id": self.video_id(index), "missing": Failure.of(error)}

    def training_item(self, index: int, rng: np.random.Generator) -> dict:
        failures = []
        for _ in range(TRIES):
            try:
                return {**self.sample(index, rng), "failures": failures}
            except VideoReadError as error:
                failures.append(Failure.of(error))
                step = rng.integers(1, max(2, len(self)))  # to any other sample
                index = int(index + step) % len(self)
        listed = "\n".join(f"  {failure}" for failure in failures)
        raise RuntimeError(
            f"{TRIES} videos of {self.name} in a row cannot be read; is its root, {self.root}, right?\n"
            f"{listed}\n"
            "python -m data_loader.check CONFIG lists all unreadable files."
        )

    @property
    def video_paths(self) -> list[Path]:
        return [self.video_path(i) for i in range(len(self))]

    @property
    def video_ids(self) -> list[str]:
        return [self.video_id(i) for i in range(len(self))]
