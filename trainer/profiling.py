"""What a run did and where: a profile of a few steps, and what a hung process leaves behind."""

import faulthandler
import logging
import os
import signal
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from utils.files import RunWriteError

logger = logging.getLogger(__name__)

SKIPPED = 8  # steps before: they compile, tune and fill the allocator
COLLECTIVES = 2000  # that the flight recorder keeps: those of some steps


class Profiler:
    """Profiles `steps` steps of this process, after some that are left out, into `folder`.

    trace.json.gz is for chrome://tracing or ui.perfetto.dev, operations.txt the operations that took
    longest; on a GPU memory.pickle is for pytorch.org/memory_viz.
    """

    def __init__(self, folder: Path, steps: int, device: torch.device):
        self.folder, self.steps, self.cuda = folder, steps, device.type == "cuda"
        self.done = 0
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.cuda else [])]
        self.profile = profile(
            activities=activities,
            schedule=schedule(skip_first=SKIPPED - 1, wait=0, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
        )
        self.profile.start()

    def step(self) -> None:
        """To be called after each step."""
        self.done += 1
        if self.done > SKIPPED + self.steps:
            return
        if self.done == SKIPPED and self.cuda:
            torch.cuda.memory._record_memory_history()
        self.profile.step()

    def close(self) -> None:
        """Warns if the run was too short."""
        if self.done < SKIPPED + self.steps:
            logger.warning(
                "--profile: the run had %d steps; %d are left out and %d were to be profiled",
                self.done,
                SKIPPED,
                self.steps,
            )
            self.profile.on_trace_ready = None
            self.profile.stop()

    def _write(self, profiled: profile) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            profiled.export_chrome_trace(str(self.folder / "trace.json.gz"))
            order = "self_device_time_total" if self.cuda else "self_cpu_time_total"
            table = profiled.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=80)
            (self.folder / "operations.txt").write_text(table + "\n")
            if self.cuda:
                torch.cuda.memory._dump_snapshot(str(self.folder / "memory.pickle"))
                torch.cuda.memory._record_memory_history(enabled=None)
        except (OSError, RuntimeError) as error:
            raise RunWriteError.of(self.folder, error) from error
        logger.info("profiled %d steps: %s", self.steps, self.folder)


def leave_traces(run_dir: Path) -> None:
    """Let hung processes tell where they are; to be called before they join.

    NCCL's flight recorder writes `run_dir`/collectives-RANK when one has waited for `trainer.timeout_s`.
    SIGUSR1 prints where each thread is. What the environment says already stays.
    """
    for name, value in {
        "TORCH_FR_BUFFER_SIZE": str(COLLECTIVES),
        "TORCH_FR_DUMP_TEMP_FILE": str(run_dir / "collectives-"),
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    }.items():
        os.environ.setdefault(name, value)
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        faulthandler.register(signal.SIGUSR1, file=2)
