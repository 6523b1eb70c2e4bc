"""Which rank is slow: each one's own time of a step, apart from the time that it waits for the others."""

import logging
import socket
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from utils.processes import DistContext

logger = logging.getLogger(__name__)

SLOW = 0.2  # of a joint step's time: a rank that takes so much longer than the median is named


class RankTimes:
    """Collects, for all ranks, the time that a rank waits for data and that of its forward.

    Both are a rank's own: in what follows, the backward with its exchange of gradients, all ranks take as
    long as the slowest. (With FSDP a forward waits for others' weights: there only the data tell.) Whoever
    waits for data adds to `waited`. What `own` gives is to be summed over the ranks, with whatever else the
    run sums, and to come back to `add`. One process has no others: it measures nothing.
    """

    def __init__(self, model: nn.Module, context: DistContext):
        self.context = context
        self.hosts: list[str] = context.gather_objects(socket.gethostname())
        self.cuda = context.device.type == "cuda"
        self.begun: Any = None
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.waited = self.forward = 0.0  # seconds, since the last call of `own`
        self._reset()
        if context.world_size > 1:
            model.register_forward_pre_hook(self._begin)
            model.register_forward_hook(self._end)

    def _reset(self) -> None:
        self.steps, self.since = 0, time.perf_counter()
        self.waits, self.forwards = [0] * self.context.world_size, [0] * self.context.world_size

    def _begin(self, model: nn.Module, _: Any) -> None:
        if model.training:
            self.begun = _event() if self.cuda else time.perf_counter()

    def _end(self, model: nn.Module, *_: Any) -> None:
        if not model.training:
            return
        if self.cuda:
            self.events.append((self.begun, _event()))
        else:
            self.forward += time.perf_counter() - self.begun

    def own(self) -> list[int]:
        """Microseconds by rank, those of the others 0: waiting for data, then forwards, since the last call.

        The forwards of a GPU that have not ended count the next time.
        """
        W, rank = self.context.world_size, self.context.rank
        if W == 1:
            return []
        while self.events and self.events[0][1].query():
            begun, ended = self.events.pop(0)
            self.forward += begun.elapsed_time(ended) / 1e3
        times = [0] * (2 * W)
        times[rank], times[W + rank] = round(1e6 * self.waited), round(1e6 * self.forward)
        self.waited = self.forward = 0.0
        return times

    def add(self, times: Sequence[int]) -> None:
        """Take the sums over all ranks of what `own` gave them after a joint step."""
        if any(times):
            W = self.context.world_size
            self.steps += 1
            self.waits = [a + b for a, b in zip(self.waits, times[:W], strict=True)]
            self.forwards = [a + b for a, b in zip(self.forwards, times[W:], strict=True)]

    def flush(self) -> dict[str, Any]:
        """Seconds a joint step by rank since the last call, for metrics.jsonl; warns of a slow rank."""
        steps, waits = self.steps, self.waits
        if not steps:
            return {}
        seconds = [(a + b) / steps / 1e6 for a, b in zip(waits, self.forwards, strict=True)]
        whole = (time.perf_counter() - self.since) / steps
        self._reset()
        slowest = max(range(len(seconds)), key=seconds.__getitem__)
        median = statistics.median_low(seconds)
        if seconds[slowest] - median > SLOW * whole:
            logger.warning(
                "rank %d on %s is slow: of %.2f s a joint step it waits %.2f s for data and takes %.2f s for "
                "its forwards; the median rank takes %.2f s for both",
                slowest,
                self.hosts[slowest],
                whole,
                waits[slowest] / steps / 1e6,
                seconds[slowest] - waits[slowest] / steps / 1e6,
                median,
            )
        return {"rank_s": [round(each, 4) for each in seconds], "slowest_rank": slowest}


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
