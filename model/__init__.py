"""TVTSv2 in one set of classes: both towers, the sort head, losses, metrics and weights files."""

from .checkpoint import LoadReport, load_checkpoint
from .clip_weights import load_clip_weights
from .tvtsv2 import ModelOutput, TVTSv2, create_model, is_new_parameter
from .variants import VARIANTS, Variant

__all__ = [
    "VARIANTS",
    "LoadReport",
    "ModelOutput",
    "TVTSv2",
    "Variant",
    "create_model",
    "is_new_parameter",
    "load_checkpoint",
    "load_clip_weights",
]
