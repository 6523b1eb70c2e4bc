"""The keys of an evaluation's config, such as those of downstream/configs/."""

from dataclasses import dataclass
from typing import Any, Literal

from utils.config import ConfigError, key


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated, by which protocol, and how fast."""

    task: Literal["retrieval", "recognition", "multiple_choice"] = key("the protocol")
    name: str = key("the data set's name in results and tables")
    data: dict[str, Any] = key("its type, its root, maybe a split, and options of its own")
    meta: str = key("folder of the lists", "meta_data")
    source: str = key("where to get the data, for messages", "")
    num_frames: int = key("frames of a clip", 12)
    sliding_window_stride: int = key(
        "average each video over clips whose frames are shifted by 0, S, 2S …; -1: one clip", -1
    )
    dsl_temperature: float = key("of the dual softmax", 0.01)
    prompts: list[str] = key("what is said of a class, whose name goes where {} is", ["a person {}"])
    batch_size: int = key("clips at once, on each GPU", 48)
    num_workers: int | None = key("processes that read videos, for each GPU; null: half the cores", None)
    reader: str = key("how videos are decoded", "pyav")
    read_timeout: float | None = key("seconds after which a video is given up; null: never", 300.0)
    precision: Literal["fp32", "bf16"] = key("fp32, with TF32 off, or the faster bf16", "fp32")

    def __post_init__(self) -> None:
        """Refuse values that would only fail, or mislead, after all videos were embedded."""
        if not {"type", "root"} <= self.data.keys():
            given = ", ".join(self.data) or "nothing"
            raise ConfigError(f"the data of {self.name} needs a type and a root; it has {given}")
        settings = {"meta", "num_frames", "image_size", "reader", "timeout", "allow_missing", "view"}
        if misplaced := sorted(settings & self.data.keys()):
            raise ConfigError(f"{', '.join(misplaced)} cannot be set in data, only at the top of the config")
        if self.sliding_window_stride == 0 or self.sliding_window_stride < -1:
            raise ConfigError(
                f"sliding_window_stride is {self.sliding_window_stride}; it must be at least 1, or -1 for no "
                "windows"
            )
        for name in ("num_frames", "batch_size", "dsl_temperature", "read_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; it must be above 0")
        if self.num_workers is not None and self.num_workers < 0:
            raise ConfigError(
                f"num_workers is {self.num_workers}; it must be 0 (read in this process) or more"
            )
        if not self.prompts or not all("{}" in prompt for prompt in self.prompts):
            raise ConfigError(f"prompts is {self.prompts}; each has to say {{}} where the class goes")
