"""What a run measures and where it is written: the log, metrics.jsonl, boards, and the best checkpoint."""

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from model import TVTSv2
from model.flops import peak_tflops, train_flops_per_clip
from trainer.boards import Board, TensorBoard, Wandb
from trainer.checkpoint import BEST_NAME, mark_best
from trainer.pictures import Picture
from utils.config import ConfigError, as_dict, nearest_key
from utils.environment import environment
from utils.files import RunWriteError, write_text
from utils.processes import DistContext
from utils.schema import PretrainingConfig

logger = logging.getLogger(__name__)

STARTS = "starts.jsonl"
RATES = ("lr_new", "lr_clip", "lr_head")  # of the new parameters, those from CLIP, those of a class head
LOSSES = ("loss", "contrastive", "sorting", "classification")
OF_A_SET = (*LOSSES, "grad_norm", "data_wait_s")  # numbers that boards show by set, too
Item = TypeVar("Item")

# ---------------------------------------------------------------------- measuring steps


class StepMeter:
    """Collects a row of numbers a step, on the device; `flush` makes plain numbers and a log line of them."""

    def __init__(self, model: TVTSv2, context: DistContext):
        self.model, self.context = model, context
        on_gpu = context.device.type == "cuda"
        self.peak = peak_tflops(torch.cuda.get_device_name(context.device) if on_gpu else "")
        self._reset()

    def _reset(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.clips = self.flops = 0.0
        self.last_wait = 0.0
        self.since = time.perf_counter()

    def timed(self, loader: Iterable[Item]) -> Iterator[Item]:
        """Iterate, and count the time spent waiting for data; `last_wait` is that for the latest item."""
        iterator = iter(loader)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.last_wait = time.perf_counter() - start
            yield item

    def add(
        self,
        step: int,
        name: str,
        batch: Mapping[str, Any],
        losses: Mapping[str, Tensor],
        grad_norm: Tensor,
        rates: Mapping[str, float],
    ) -> None:
        """Record one optimiser step. Tensors are read by `flush`: here the host would wait for the device."""
        numbers = {**rates, "grad_norm": grad_norm, **losses, "data_wait_s": round(self.last_wait, 4)}
        self.rows.append({"step": step, "set": name, **numbers})
        videos, texts = batch["video"].shape[0], len(batch.get("text", ()))
        self.clips += videos * self.context.world_size
        self.flops += videos * train_flops_per_clip(
            self.model.variant,
            num_frames=batch["video"].shape[1],
            kept_patches=batch["keep_ind"].shape[1] if "keep_ind" in batch else self.model.num_patches,
            texts=texts // videos,
            text_len=batch["text"].shape[1] if texts else 0,
        )

    def flush(self) -> tuple[list[dict[str, Any]], str]:
        """The rows since the last flush as plain numbers, and a line for people."""
        rows = [{k: v.item() if torch.is_tensor(v) else v for k, v in row.items()} for row in self.rows]
        seconds = max(time.perf_counter() - self.since, 1e-9)
        if not rows:
            return [], ""
        waits: dict[str, float] = {}  # by set
        for row in rows:
            waits[str(row["set"])] = waits.get(str(row["set"]), 0.0) + row["data_wait_s"]
        rates = {"clips_per_s": self.clips / seconds, "data_wait": sum(waits.values()) / seconds}
        words = []
        for name in waits:
            own = [row for row in rows if row["set"] == name]
            losses = (f"{loss} {_mean(own, loss):.3f}" for loss in LOSSES if loss in own[0])
            words += [f"({name})", *losses]
        words.append("lr " + " / ".join(f"{rows[-1][name]:.1e}" for name in RATES if name in rows[-1]))
        words.append(f"grad {_mean(rows, 'grad_norm'):.2f}")
        words += [f"{rates['clips_per_s']:.1f} clips/s", f"data wait {100 * rates['data_wait']:.0f} %"]
        if len(waits) > 1:
            words[-1] += f" ({', '.join(f'{name} {100 * s / seconds:.0f} %' for name, s in waits.items())})"
        if self.context.device.type == "cuda":
            rates["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            words.append(f"{rates['memory_gib']:.1f} GiB")
        if self.peak is not None:  # the model-FLOPs utilisation
            rates["mfu"] = self.flops / seconds / (self.peak * 1e12)
            words.append(f"MFU {100 * rates['mfu']:.0f} %")
        rows[-1].update({name: round(value, 4) for name, value in rates.items()})
        self._reset()
        return rows, "  ".join(words)


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [row[name] for row in rows if name in row]
    return sum(values) / len(values)


# ---------------------------------------------------------------------- writing down


def setup_logging(run_dir: Path, is_main: bool) -> None:
    """Rank 0 logs to the terminal and to run_dir/log.txt; the others log only warnings and errors."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if is_main:
        handlers.append(LogFile(run_dir / "log.txt"))
    level = logging.INFO if is_main else logging.WARNING
    logging.basicConfig(
        level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )


class LogFile(logging.FileHandler):
    """A log file that does not complain of a full disk: the checkpoint or metrics.jsonl will."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def write_settings(
    run_dir: Path, config: PretrainingConfig, global_step: int = 0, torchruns: Sequence[str] = ()
) -> None:
    """Save the resolved config, and the command, commit, versions and machine that it runs with.

    config.json and environment.json are those of the latest start; starts.jsonl has a line for each.
    """
    write_text(json.dumps(as_dict(config), indent=2) + "\n", run_dir / "config.json", RunWriteError)
    found = environment()
    write_text(json.dumps(found, indent=2) + "\n", run_dir / "environment.json", RunWriteError)
    start = {"step": global_step, **found, "torchruns": list(torchruns), "config": as_dict(config)}
    _append([start], run_dir / STARTS)


class RunLog:
    """metrics.jsonl, one object a line ("kind" is "step", "validation" or "evaluation"), and the boards.

    What an interrupted run wrote after `global_step`, where this one goes on, is removed; all of
    it, where that is the start: it is measured again. A board that fails, when it is opened or later, is
    given up with a warning: no reason to end a training.
    """

    def __init__(self, run_dir: Path, config: PretrainingConfig, global_step: int):
        self.path = run_dir / "metrics.jsonl"
        self.writing = threading.Lock()  # a validation is written down by the thread of the checkpoints
        self._drop_after(global_step)
        self.boards: dict[str, Board] = {}
        if config.trainer.tensorboard:
            with self._giving_up("tensorboard"):
                self.boards["tensorboard"] = TensorBoard(run_dir, global_step)
        if config.trainer.wandb:
            with self._giving_up("wandb"):
                self.boards["wandb"] = Wandb(run_dir, config)

    def _drop_after(self, global_step: int) -> None:
        if self.path.is_file():
            lines = [line for line in self.path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if 0 < global_step >= json.loads(line)["step"]]
            write_text("".join(f"{line}\n" for line in kept), self.path, RunWriteError)

    def has(self, kind: str, step: int) -> bool:
        """Whether there is a row of that kind for that step."""
        with self.writing:
            lines = self.path.read_text().splitlines() if self.path.is_file() else []
        return any(row["kind"] == kind and row["step"] == step for row in map(json.loads, lines))

    def write(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows, each with its "step". Raises RunWriteError where the disk is full."""
        with self.writing:
            _append([{"kind": kind, **row} for row in rows], self.path)
            for name, board in list(self.boards.items()):
                with self._giving_up(name):
                    for row in rows:
                        numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}
                        if "set" in row:  # curves of several sets would else be one that jumps between them
                            numbers |= {f"{row['set']}/{k}": numbers[k] for k in OF_A_SET if k in numbers}
                        board.write({f"{kind}/{key}": value for key, value in numbers.items()}, row["step"])

    def show(self, step: int, name: str, pictures: Mapping[str, Picture]) -> None:
        """Put pictures of a set's validation on the boards."""
        with self.writing:
            for board_name, board in list(self.boards.items()):
                with self._giving_up(board_name):
                    for title, picture in pictures.items():
                        board.show(f"validation/{name}_{title}", picture, step)

    def close(self) -> None:
        for name, board in list(self.boards.items()):
            with self._giving_up(name):
                board.close()

    @contextlib.contextmanager
    def _giving_up(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 (some of wandb's own have no nearer base)
            logger.warning("trainer.%s is given up for this run: %s: %s", name, type(error).__name__, error)
            self.boards.pop(name, None)


def _append(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    try:
        with path.open("ab+") as file:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            if file.tell():  # behind a line that was cut off, a new one
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else f"\n{text}"
            file.write(text.encode())
    except OSError as error:
        raise RunWriteError.of(path, error) from error


# ---------------------------------------------------------------------- the best checkpoint


class Monitor:
    """Keeps `model_best.pth`, and beside it `model_best.json`, which says what made it the best.

    Args:
        text: "max" or "min" and the name of a metric, such as "max webvid_t2v_R1".
        run_dir: the run's folder; a best one there, by the same metric, is the one to beat.
        known: the metrics that validation gives.

    Raises:
        ConfigError: the metric is none of them.
    """

    def __init__(self, text: str, run_dir: Path, known: Sequence[str]):
        self.text = text
        self.mode, _, self.name = text.partition(" ")
        self.note = run_dir / Path(BEST_NAME).with_suffix(".json").name
        if self.name not in known:
            raise ConfigError(
                f"trainer.monitor is {text!r}, but validation has no metric {self.name!r}; "
                f"{nearest_key(self.name, known)} (null: no best checkpoint)"
            )

    @property
    def best(self) -> float | None:
        """The metric of the best checkpoint so far."""
        if not self.note.is_file():
            return None
        note = json.loads(self.note.read_text())
        return note["value"] if note["monitor"] == self.text else None

    def keep_if_best(self, metrics: Mapping[str, float], checkpoint: Path) -> None:
        """Make `checkpoint` the best if it is there, and its metric is no worse than that of all before.

        Of equals the later one is kept: where few videos validate, all are soon right, and say no more.
        """
        if not checkpoint.exists():  # before the first step
            return
        value, best = metrics[self.name], self.best
        if best is not None and not (value >= best if self.mode == "max" else value <= best):
            return
        mark_best(checkpoint)
        note = {"monitor": self.text, "value": value, "checkpoint": checkpoint.name}
        write_text(json.dumps(note) + "\n", self.note, RunWriteError)
        logger.info("best so far: %s, %s %.2f", checkpoint.name, self.name, value)
