"""Starting weights: an image-text CLIP, from OpenAI or OpenCLIP, becomes a TVTSv2 that sees no time yet."""

import logging
from pathlib import Path

from torch import Tensor

from CLIP import weights as clip_weights
from OpenCLIP import weights as openclip_weights

from .checkpoint import CheckpointError, LoadReport, fill, read_state_dict
from .tvtsv2 import TVTSv2

logger = logging.getLogger(__name__)

FAMILIES = {"CLIP": clip_weights, "OpenCLIP": openclip_weights}
# What CLIP lacks. The first stands in every model; temporal attention starts as adding nothing.
FRESH = r"video_model\.(temporal_embedding|transformer\.resblocks\.\d+\.(timeattn|ln_3)\.)|pred_model\."
# What TVTSv2 lacks: it has a fixed temperature.
IGNORED = r"(logit_scale|input_resolution|context_length|vocab_size)$"


def load_clip_weights(model: TVTSv2, path: str | Path | None = None) -> LoadReport:
    """Start a TVTSv2 from the CLIP that its variant names.

    Args:
        path: a weights file (OpenAI's TorchScript archive, or a state_dict as .pt, .bin or .safetensors), or
            the folder to look for it in; None is CLIP/models or OpenCLIP/models.

    Returns:
        a report; its `fresh` are timeattn, ln_3, temporal_embedding and the sort head.

    Raises:
        FileNotFoundError: says which file is missing, where it goes and where to get it.
        CheckpointError: the file does not fit; lists what is missing, left over or of another shape.
        ValueError: the variant starts from random weights.
    """
    variant = model.variant
    if variant.clip_family is None or variant.clip_model is None:
        raise ValueError(f"{variant.name} has no CLIP to start from; it starts from random weights")
    if path is None or Path(path).is_dir():
        family = FAMILIES[variant.clip_family]
        path = family.find_weights(variant.clip_model, path or family.FOLDER)
    state = read_state_dict(path)
    if variant.clip_family == "CLIP":
        different = clip_weights.differs_from_published(variant.clip_model, path)
        if different:
            logger.warning("%s", different)
    if "video_model.conv1.weight" in state:
        raise CheckpointError(f"{path} is a TVTSv2 checkpoint already; load it with load_checkpoint")
    return fill(model, rename(state), path, variant.name, FRESH, IGNORED)


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP's state_dict under the names of TVTSv2; names without a counterpart stay as they are."""
    return {_renamed(name): value for name, value in state.items()}


def _renamed(name: str) -> str:
    if name.startswith("visual."):
        name = name.replace("visual.", "video_model.", 1)
        return name.replace(".attn.in_proj_", ".attn.qkv.").replace(".attn.out_proj.", ".attn.proj.")
    if name.startswith("transformer."):
        return name.replace("transformer.", "text_model.", 1)
    if name.startswith(("token_embedding.", "positional_embedding", "ln_final.")):
        return f"text_{name}"
    return name  # text_projection is called so on both sides
