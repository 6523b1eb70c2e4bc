"""CLIP itself, from open_clip, over mean-pooled frames: the baseline of papers on video models."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from einops import rearrange
from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.transform import CenterCrop, PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from data_loader.transforms import three_corners
from downstream.embedding.encoder import OPEN_CLIP, Encoder, weights_hash
from model.checkpoint import fill, read_state_dict
from utils.config import nearest_key, resolve_path
from utils.processes import DistContext

NUM_FRAMES = 12  # as TVTSv2's clips; CLIP takes any number
ImageStep = Any  # of torchvision: from an image to an image
HOW = f"{OPEN_CLIP}NAME:FILE, as in {OPEN_CLIP}ViT-B-32:CLIP/models/ViT-B-32.pt"


class MeanPooledCLIP(nn.Module):
    """Each frame through the image tower; a clip is the mean of its frames' normalised embeddings."""

    clip: Any  # a CLIP, CustomTextCLIP or CoCa
    mean: Tensor
    std: Tensor

    def __init__(self, clip: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def encode_video(self, video: Tensor, *, valid_frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As VideoTextModel has it. The tokens [B, T, D] are the frames; padding's are zeros."""
        B, T = video.shape[:2]
        frames = rearrange(video, "b t c h w -> (b t) c h w").to(self.mean.device, non_blocking=True)
        frames = frames.float().div(255).sub(self.mean).div(self.std)
        embeds = normalize(self.clip.encode_image(frames).float(), dim=-1)
        embeds = rearrange(embeds, "(b t) d -> b t d", b=B)
        if valid_frames is None:
            return embeds.mean(dim=1), embeds
        valid = valid_frames.to(embeds.device)
        embeds = embeds * (torch.arange(T, device=embeds.device) < valid[:, None])[..., None]
        return embeds.sum(dim=1) / valid[:, None], embeds

    def encode_text(self, token_ids: Tensor) -> Tensor:
        return self.clip.encode_text(token_ids.to(self.mean.device, non_blocking=True))


class FrameTransform:
    """open_clip's preprocessing of an image, for each frame, up to where pixels become floats."""

    def __init__(self, steps: Sequence[ImageStep]):
        self.steps = steps

    @staticmethod
    def of(preprocess: PreprocessCfg) -> "FrameTransform":
        """That of weights; where it ends in a crop, it can cut three."""
        *steps, _to_tensor, _normalize = image_transform_v2(preprocess, is_train=False).transforms
        crops = any(isinstance(step, CenterCrop) for step in steps)
        return CroppedFrames(steps) if crops else FrameTransform(steps)

    def __call__(self, frames: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """frames uint8 [T, 3, H, W] -> uint8 [T, 3, S, S']. Nothing is random; rng is not used."""
        return torch.from_numpy(np.stack([pixels(image, self.steps) for image in images(frames)]))


class CroppedFrames(FrameTransform):
    """One with a centre crop among its steps: a `CroppingTransform`."""

    def three_crops(self, frames: Tensor) -> Tensor:
        """As CroppingTransform has it."""
        place = next(i for i, step in enumerate(self.steps) if isinstance(step, CenterCrop))
        height, width = self.steps[place].size
        crops = []
        for image in images(frames):
            image = through(image, self.steps[:place])
            corners = three_corners(image.height - height, image.width - width)
            cut = [image.crop((left, top, left + width, top + height)) for top, left in corners]
            crops.append(np.stack([pixels(each, self.steps[place + 1 :]) for each in cut]))
        return torch.from_numpy(np.stack(crops))


def images(frames: Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in rearrange(frames.numpy(), "t c h w -> t h w c")]


def through(image: Image.Image, steps: Sequence[ImageStep]) -> Image.Image:
    for step in steps:
        image = step(image)
    return image


def pixels(image: Image.Image, steps: Sequence[ImageStep]) -> np.ndarray:
    """An image after the steps, uint8 [3, H, W]."""
    return rearrange(np.asarray(through(image, steps)), "h w c -> c h w")


def load_open_clip(arch: str, checkpoint: str | None, context: DistContext) -> Encoder:
    """A CLIP of open_clip with the weights of a local file; nothing is fetched, and no pickle is run.

    Args:
        arch: open_clip:NAME, or open_clip:NAME/TAG where published weights of one model want different
            preprocessing or activations; names and tags are open_clip's (`open_clip.list_pretrained()`).
        checkpoint: .safetensors, torch.save's file, or OpenAI's archive.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such model or tag, none is named where it matters, the file does not fit, or the model
            needs files from the Hugging Face hub that are not in its cache.
    """
    name, _, tag = arch.removeprefix(OPEN_CLIP).partition("/")
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise ValueError(f"unknown model {arch}; {nearest_key(name, open_clip.list_models())} Write {HOW}")
    if checkpoint is None:
        raise ValueError(f"{arch} needs the file of its weights: {HOW}")
    text = config["text_cfg"]
    if text.get("hf_model_name"):
        raise ValueError(f"{arch}: its text tower is made by transformers; those are not supported here")
    path = resolve_path(checkpoint)
    state = read_state_dict(path)
    if not tag and "input_resolution" in state and "openai" in list_pretrained_tags_by_model(name):
        tag = "openai"  # whose archives alone say so
    published = published_form(name, tag)
    # The vocabulary of other tokenizers than CLIP's comes from the hub; only its cache is looked into.
    local = {"local_files_only": True} if text.get("hf_tokenizer_name") else {}
    try:
        tokenizer = open_clip.get_tokenizer(name, **local)
    except OSError as error:
        raise ValueError(
            f"{arch}: its tokenizer, {text['hf_tokenizer_name']}, is not in the Hugging Face cache; fetch it "
            f"once with: hf download {text['hf_tokenizer_name']}"
        ) from error
    quick = {"quick_gelu": True} if published.get("quick_gelu") else {}
    logging.disable(logging.WARNING)  # that its weights are random, which they are not for long
    try:
        clip = open_clip.create_model(name, load_weights=False, pretrained_text=False, **quick)
    finally:
        logging.disable(logging.NOTSET)
    fill_clip(clip, state, path, arch)
    preprocess = PreprocessCfg(**{**clip.visual.preprocess_cfg, **form_of(published)})
    model = MeanPooledCLIP(clip, preprocess.mean, preprocess.std)
    transform = FrameTransform.of(preprocess)
    return Encoder(
        model.to(context.device).eval(),
        tokenizer,
        transform,
        transform,
        NUM_FRAMES,
        arch,
        path,
        weights_hash(path, context),
        more_frames=True,
    )


def fill_clip(clip: nn.Module, state: dict[str, Tensor], path: Path, arch: str) -> None:
    """Put weights, under the names of whichever release, into an open_clip model. Raises CheckpointError."""
    # Of the loss, in several shapes, and of OpenAI's archives.
    not_used = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")
    state = convert_state_dict(clip, {name: value for name, value in state.items() if name not in not_used})
    if not hasattr(clip, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    fill(clip, state, path, arch, may_be_fresh="logit_(scale|bias)$")


def form_of(published: dict[str, Any]) -> dict[str, Any]:
    """What weights want their pictures to be like, of what open_clip says of them."""
    return {
        key: published[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in published
    }


def published_form(name: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of the weights `tag` of a model, or "" of all its weights: their preprocessing,
    and "quick_gelu"; {} for a model of which none were published.

    Raises:
        ValueError: no such tag; or none is given, and weights of the model differ in their preprocessing.
    """
    tags = list_pretrained_tags_by_model(name)
    if tag:
        if tag not in tags:
            raise ValueError(f"{OPEN_CLIP}{name} has no weights {tag!r}; {nearest_key(tag, tags)}")
        return get_pretrained_cfg(name, tag)
    forms = {each: get_pretrained_cfg(name, each) for each in tags}
    write = f"say whose these are with {OPEN_CLIP}{name}/TAG:FILE; TAG: {', '.join(tags)}"
    pictures = [form_of(form) for form in forms.values()]
    if any(each != pictures[0] for each in pictures):
        raise ValueError(f"the published weights of {name} want different preprocessing: {write}")
    quick = [each for each, form in forms.items() if form.get("quick_gelu")]
    if 0 < len(quick) < len(forms):
        print(
            f"warning: {OPEN_CLIP}{name} has GELU; of its published weights {', '.join(quick)} were trained "
            f"with QuickGELU: {write}",
            file=sys.stderr,
        )
    return pictures[0] if pictures else {}
