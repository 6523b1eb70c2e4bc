"""The table of variants: one JSON a variant in model/variants/, read into `VARIANTS`."""

import dataclasses
import difflib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Variant:
    """Everything that tells one TVTSv2 from another.

    Sizes in pixels, tokens or channels. `mask_ratio` is that of pre-training; evaluation masks nothing.
    """

    name: str
    image_size: int
    patch_size: int
    num_frames: int  # the most frames a clip may have
    video_width: int
    video_layers: int
    video_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    trained_text_blocks: int  # the last so many text blocks are trained, those below are frozen
    context_length: int
    vocab_size: int
    embed_dim: int  # D: both towers end in it, the sort head works in it
    activation: str  # "quick_gelu" (OpenAI's CLIP) or "gelu" (OpenCLIP's ViT-H)
    sort_layers: int
    sort_heads: int
    sort_clips: int  # K: clips of a sample that the sort head puts in order
    sort_tokens: str  # what it sees: "all_normed" or "patches_raw", see VideoTransformer
    mask_ratio: float
    temporal_attention_init: str  # "zero" (official: starts as adding nothing) or "random"
    temporal_embedding_std: float | None  # None: video_width ** -0.5, as official
    positional_embedding_std: (
        float | None
    )  # of the video tower's patches; None: video_width ** -0.5, as CLIP's
    clip_family: str | None  # whose weights it starts from: "CLIP", "OpenCLIP" or nobody's
    clip_model: str | None  # and which of them
    text_embedding_std: float | None = (
        None  # of the text's tokens and positions; None: 0.02 and 0.01, as CLIP's
    )

    def __post_init__(self):
        _check_choice(self, "activation", ("quick_gelu", "gelu"))
        _check_choice(self, "sort_tokens", ("all_normed", "patches_raw"))
        _check_choice(self, "temporal_attention_init", ("zero", "random"))
        for part, width, heads in (
            ("video_heads", self.video_width, self.video_heads),
            ("text_heads", self.text_width, self.text_heads),
            ("sort_heads", self.embed_dim, self.sort_heads),
        ):
            if width % heads:
                raise ValueError(f"{self.name}: {part}={heads} does not divide the width {width}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"{self.name}: image_size={self.image_size} is no multiple of patch_size={self.patch_size}"
            )
        if not 0 <= self.trained_text_blocks <= self.text_layers:
            raise ValueError(
                f"{self.name}: trained_text_blocks={self.trained_text_blocks}, not in 0..{self.text_layers}"
            )
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"{self.name}: mask_ratio={self.mask_ratio}, expected 0 <= ratio < 1")
        if self.num_frames < 1:
            raise ValueError(f"{self.name}: num_frames={self.num_frames}, expected 1 or more")

    @property
    def num_patches(self) -> int:
        """N, patches a frame."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def kept_patches(self) -> int:
        """n, patches a frame that pre-training keeps."""
        return int(self.num_patches * (1 - self.mask_ratio))

    def replace(self, **overrides) -> "Variant":
        """A copy with some fields replaced; ValueError names an unknown field."""
        known = {field.name for field in fields(self)} - {"name"}
        unknown = sorted(set(overrides) - known)
        if unknown:
            raise ValueError(
                f"{self.name} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}"
            )
        return dataclasses.replace(self, **overrides)


def _check_choice(variant: Variant, field: str, choices: tuple[str, ...]) -> None:
    if getattr(variant, field) not in choices:
        raise ValueError(f"{variant.name}: {field}={getattr(variant, field)!r}, expected one of {choices}")


def _read_variants() -> dict[str, Variant]:
    folder = Path(__file__).parent / "variants"
    return {
        path.stem: Variant(name=path.stem, **json.loads(path.read_text()))
        for path in sorted(folder.glob("*.json"))
    }


VARIANTS: dict[str, Variant] = _read_variants()


def get_variant(name: str) -> Variant:
    """The variant of that name; ValueError names the one that was probably meant, and all there are."""
    if name not in VARIANTS:
        known = {_letters(variant): variant for variant in VARIANTS}
        close = difflib.get_close_matches(_letters(name), known, n=1, cutoff=0.5)
        hint = f"did you mean {known[close[0]]!r}? There are" if close else "there are"
        raise ValueError(f"unknown model {name!r}; {hint} {', '.join(VARIANTS)}")
    return VARIANTS[name]


def _letters(name: str) -> str:
    """Letters and digits alone, so that "B/32" and "b_32" are as near to TVTSv2_B_32 as "B32"."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())
