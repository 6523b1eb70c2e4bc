"""Losses and rates of the steps since the last log line, kept on the device until they are asked for."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from model.flops import peak_tflops, train_flops_per_clip
from utils.processes import DistContext

RATES = ("lr_new", "lr_clip")  # learning rates of the new parameters and of those from CLIP


class StepMeter:
    """Collects a row of numbers a step; `flush` turns them into records and a line to read."""

    def __init__(self, model: torch.nn.Module, context: DistContext):
        self.model, self.context = model, context
        self.peak = peak_tflops(_device_name(context.device))  # for the model-FLOPs utilisation (MFU)
        self._reset()

    def _reset(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.clips = self.waited = self.flops = 0.0
        self.since = time.perf_counter()

    def timed(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Iterate, and count the time spent waiting for data."""
        iterator = iter(loader)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - start
            yield item

    def add(
        self,
        step: int,
        name: str,
        batch: Mapping[str, Any],
        losses: Mapping[str, torch.Tensor],
        grad_norm: torch.Tensor,
        rates: Mapping[str, float],
    ) -> None:
        """Record one optimiser step. Tensors are not read before `flush`, so the device is not waited for."""
        self.rows.append({"step": step, "set": name, **rates, "grad_norm": grad_norm, **losses})
        videos, texts = batch["video"].shape[0], batch["text"].shape[0]
        self.clips += videos * self.context.world_size
        self.flops += videos * train_flops_per_clip(
            self.model.variant,
            num_frames=batch["video"].shape[1],
            kept_patches=batch["keep_ind"].shape[1] if "keep_ind" in batch else self.model.num_patches,
            texts=texts // videos,
            text_len=batch["text"].shape[1],
        )

    def flush(self) -> tuple[list[dict[str, Any]], str]:
        """The rows since the last flush as plain numbers, and a line for people."""
        rows = [{k: v.item() if torch.is_tensor(v) else v for k, v in row.items()} for row in self.rows]
        seconds = max(time.perf_counter() - self.since, 1e-9)
        if not rows:
            return [], ""
        rates = {"clips_per_s": self.clips / seconds, "data_wait": self.waited / seconds}
        names = [name for name in ("loss", "contrastive", "sorting") if any(name in row for row in rows)]
        sets = ", ".join(dict.fromkeys(row["set"] for row in rows))
        parts = [f"({sets})", *(f"{name} {_mean(rows, name):.3f}" for name in names)]
        parts.append("lr " + " / ".join(f"{rows[-1][name]:.1e}" for name in RATES if name in rows[-1]))
        parts.append(f"grad {_mean(rows, 'grad_norm'):.2f}")
        parts += [f"{rates['clips_per_s']:.1f} clips/s", f"data wait {100 * rates['data_wait']:.0f} %"]
        if self.context.device.type == "cuda":
            rates["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            parts.append(f"{rates['memory_gib']:.1f} GiB")
        if self.peak is not None:
            rates["mfu"] = self.flops / seconds / (self.peak * 1e12)
            parts.append(f"MFU {100 * rates['mfu']:.0f} %")
        rows[-1].update({name: round(value, 4) for name, value in rates.items()})
        self._reset()
        return rows, "  ".join(parts)


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    values = [row[name] for row in rows if name in row]
    return sum(values) / len(values)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""
