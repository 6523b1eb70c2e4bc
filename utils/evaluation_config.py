"""The keys of an evaluation's config, such as those of downstream/configs/."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated, by which protocol, and how fast; downstream/configs/base.json has the defaults."""

    task: str
    name: str
    data: dict[str, Any]
    meta: str
    source: str
    num_frames: int
    sliding_window_stride: int
    dsl_temperature: float
    prompts: list[str]
    batch_size: int
    num_workers: int | None
    reader: str
    read_timeout: float | None
    precision: str
