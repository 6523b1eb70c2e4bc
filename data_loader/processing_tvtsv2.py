"""Videos and texts to the model's input, for transformers: `model.convert --transformers` copies it."""

import html
from collections.abc import Sequence
from typing import Any

import ftfy
import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from .sampling import linspace_frames, sample_frames
from .transforms import clip_transform, feature_transform, pad_clip

TRANSFORMS = ("features", "test")


class TVTSv2Processor(ProcessorMixin):
    """processor(text=…, videos=…) -> "input_ids", "pixel_values_videos" and, of the tests, "valid_frames".

    `transform` says how frames become a clip: "features", as the official feature extraction does it (frames
    from the first to the last, squashed to the model's size), or "test", as the official evaluation does
    (the middle frames of equal parts, resized and cropped).
    """

    attributes = ("tokenizer",)  # transformers before version 5 reads it
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        image_size: int = 224,
        num_frames: int = 12,
        context_length: int = 77,
        transform: str = "features",
        **kwargs: Any,
    ):
        super().__init__(tokenizer, **kwargs)
        self.image_size = image_size
        self.num_frames = num_frames
        self.context_length = context_length
        self.transform = transform

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        transform: str | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """
        Args:
            text: a text or several.
            videos: the decoded frames of a video or of several, NumPy's or PyTorch's, uint8 [T, 3, H, W] or
                [T, H, W, 3] each: all that there are, a clip's are chosen from them as `transform` says.
            return_tensors: "pt" alone.

        Returns:
            "input_ids" int64 [M, 77]; "pixel_values_videos" uint8 [B, num_frames, 3, S, S], which the model
            normalises; with transform "test" also "valid_frames" int64 [B]: how many of them are not padding.

        Raises:
            ValueError: neither text nor videos, frames of another shape or type, or an unknown transform.
        """
        if text is None and videos is None:
            raise ValueError("give text=…, videos=… or both")
        if return_tensors != "pt":
            raise ValueError(f"return_tensors is {return_tensors!r}; there is only 'pt'")
        found = {}
        if text is not None:
            found["input_ids"] = self.token_ids([text] if isinstance(text, str) else text)
        if videos is not None:
            found |= self.clips(videos, transform or self.transform)
        return BatchFeature(found)

    def token_ids(self, texts: Sequence[str]) -> torch.Tensor:
        """Start-of-text, the words, end-of-text, zeros: int64 [M, 77]. A longer text is cut."""
        cleaned = [_clean(text) for text in texts]
        ids = self.tokenizer(cleaned, truncation=True, max_length=self.context_length)["input_ids"]
        padded = torch.zeros(len(ids), self.context_length, dtype=torch.int64)
        for row, of_text in zip(padded, ids, strict=True):
            row[: len(of_text)] = torch.tensor(of_text)
        return padded

    def clips(self, videos: Any, transform: str) -> dict[str, torch.Tensor]:
        if transform not in TRANSFORMS:
            raise ValueError(f"transform is {transform!r}; expected one of {', '.join(TRANSFORMS)}")
        if isinstance(videos, torch.Tensor | np.ndarray) and videos.ndim == 4:
            videos = [videos]
        frames = [_channels_first(video) for video in videos]
        if transform == "features":
            squash = feature_transform(self.image_size)
            clips = [squash(video[linspace_frames(self.num_frames, len(video))]) for video in frames]
            return {"pixel_values_videos": torch.stack(clips)}
        crop = clip_transform("test", self.image_size)
        padded = [
            pad_clip(crop(video[sample_frames(self.num_frames, len(video))]), self.num_frames)
            for video in frames
        ]
        return {
            "pixel_values_videos": torch.stack([clip for clip, _ in padded]),
            "valid_frames": torch.tensor([valid for _, valid in padded]),
        }


def _clean(text: str) -> str:
    """As CLIP's tokenizer cleans a text before it is split."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _channels_first(video: Any) -> torch.Tensor:
    frames = torch.as_tensor(video)
    if frames.ndim == 4 and frames.shape[1] != 3 and frames.shape[3] == 3:
        frames = frames.permute(0, 3, 1, 2)
    if frames.ndim != 4 or frames.shape[1] != 3 or not len(frames) or frames.dtype != torch.uint8:
        raise ValueError(
            "a video must be its decoded frames, uint8 [T, 3, H, W] or [T, H, W, 3], T at least 1; "
            f"got {frames.dtype} {list(frames.shape)}"
        )
    return frames
