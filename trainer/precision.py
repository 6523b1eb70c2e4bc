"""The number format of the model's arithmetic. Weights, losses and the optimiser stay in float32."""

import contextlib
import logging
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}


@dataclass(frozen=True)
class Precision:
    """`name` is bf16, fp16 or fp32; `dtype` what the device computes in under autocast, None for float32."""

    name: str
    device: torch.device

    @property
    def dtype(self) -> torch.dtype | None:
        return DTYPES[self.name]

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss so that small gradients survive in fp16; does nothing in the other formats."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`trainer.precision` on this device: bf16 becomes fp32 where the device has no fast bf16.

    Raises:
        ValueError: fp16 without a GPU.
    """
    if wanted == "bf16" and not (
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        logger.info("bf16 is not fast on this device: training in fp32")
        return Precision("fp32", device)
    if wanted == "fp16" and device.type != "cuda":
        raise ValueError("trainer.precision fp16 needs a GPU; use fp32")
    return Precision(wanted, device)
