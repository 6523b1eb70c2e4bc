"""The model that the `arch` section of a config asks for, with its starting weights."""

import logging

from utils.config import resolve_path
from utils.schema import ArchConfig

from .checkpoint import load_state, read_state_dict
from .class_head import PREFIX
from .clip_weights import load_clip_weights
from .tvtsv2 import TVTSv2, create_model

logger = logging.getLogger(__name__)

# What the model's table of variants decides unless the config says otherwise.
SWITCHES = (
    "num_frames",
    "attention",
    "activation_checkpointing",
    "freeze_text_embeddings",
    "temporal_attention_init",
    "trained_text_blocks",
)


def build_model(arch: ArchConfig, starting_weights: bool = True) -> TVTSv2:
    """The variant with the section's switches and, unless they are to be loaded later, its starting weights.

    Raises:
        ValueError, FileNotFoundError: an unknown variant or switch, or weights that cannot be loaded.
    """
    switches = {key: value for key in SWITCHES if (value := getattr(arch, key)) is not None}
    model = create_model(arch.type, **switches)
    if starting_weights:
        load_starting_weights(model, arch)
    return model


def load_starting_weights(model: TVTSv2, arch: ArchConfig) -> None:
    """Load what `arch.start_from` names: "clip", "random" (as they are), or a checkpoint's path.

    A checkpoint's classification head is left out: it is of other data.
    """
    source = arch.start_from
    if source == "random":
        return
    if source == "clip":
        report = load_clip_weights(model, arch.clip_weights)
    else:
        state = read_state_dict(path := resolve_path(source))
        report = load_state(model, {k: x for k, x in state.items() if not k.startswith(PREFIX)}, path)
    logger.info("%s", report)
