"""Several clips of a video, to be averaged: `--sliding_window_stride`, `--segments` and `--crops`."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import Dataset

from data_loader.dataset import VideoDataset, frames_of
from data_loader.failures import Failure
from data_loader.sampling import part_bounds, sample_frames, window_shifts
from data_loader.transforms import CroppingTransform, pad_clip
from data_loader.video import Video, VideoReadError, open_video, read_in_parts


class SlidingWindows(Dataset):
    """The videos of `dataset`, each as several clips: the start of each part, shifted by 0, S, 2S …

    An item is {"video": uint8 [W, T, 3, S, S], "valid_frames": int64 [W], "index": i}, or {"index",
    "missing"} when the file cannot be read; embeddings are to be averaged over W, as the official release
    does. Each file is opened and decoded once for all its windows.
    """

    clips_an_item = 32  # not a bound, as files may have more: workers are to hand over one video at a time

    def __init__(self, dataset: VideoDataset, stride: int):
        window_shifts(
            dataset.num_frames, dataset.num_frames, stride
        )  # raises on a stride that makes no sense
        self.dataset = dataset
        self.stride = stride

    def __len__(self) -> int:
        return len(self.dataset)

    def windows(self, frames: range) -> list[list[int]]:
        """The frames of each window of a record, of whose frames these are the indices."""
        num_frames, vlen = self.dataset.num_frames, len(frames)
        shifts = window_shifts(num_frames, vlen, self.stride)
        return [[frames[i] for i in sample_frames(num_frames, vlen, shift=shift)] for shift in shifts]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return read_clips(self.dataset, index, self.windows, self.dataset.transform)


class Views(Dataset):
    """The videos of `dataset`, each as `segments` × `crops` clips.

    A segment is an equal part of the video, with `num_frames` uniform frames of its own, fewer where it is
    shorter; a video of fewer frames than segments repeats some. One crop is the centre; three are left,
    centre and right, or of a portrait top, centre and bottom. The clips of an item, as SlidingWindows has
    them, go by segment, then by crop.
    """

    def __init__(self, dataset: VideoDataset, segments: int, crops: int):
        self.dataset, self.segments = dataset, segments
        self.transform: Callable[[torch.Tensor], torch.Tensor] = dataset.transform
        if crops > 1:
            assert isinstance(dataset.transform, CroppingTransform)
            self.transform = dataset.transform.three_crops
        self.clips_an_item = segments * crops

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return read_clips(self.dataset, index, self.frames, self.transform)

    def frames(self, frames: range) -> list[list[int]]:
        """The frames of each segment of a record, of whose frames these are the indices."""
        bounds = part_bounds(self.segments, len(frames)).tolist()
        return [
            [frames[start + i] for i in sample_frames(self.dataset.num_frames, max(1, end - start))]
            for start, end in pairwise(bounds)
        ]


def read_clips(
    data: VideoDataset,
    index: int,
    choose: Callable[[range], list[list[int]]],
    transform: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, Any]:
    """An item of several clips; the file is opened, and each of its frames decoded, once for all of them.

    choose: from the frames of the record to those of each clip. transform: from frames [T, 3, H, W] to as
    many, or to several crops [T, C, 3, S, S], which become C clips.
    """
    clips: list[list[int]] = []

    def all_frames(video: Video) -> list[int]:
        clips[:] = choose(frames_of(video, data.records.span(index)))
        return [frame for clip in clips for frame in clip]

    try:
        with data.records.video_file(index) as path, open_video(path, data.reader, data.timeout) as video:
            frames, _ = read_in_parts(video, all_frames, transform)
    except VideoReadError as error:
        return {"index": index, "missing": Failure.of(error)}
    frames = frames if frames.dim() == 5 else frames[:, None]  # [all frames, crops, 3, S, S]
    parts = frames.split([len(clip) for clip in clips])
    padded = [pad_clip(crop, data.num_frames) for part in parts for crop in part.unbind(1)]
    return {
        "video": torch.stack([video for video, _ in padded]),
        "valid_frames": torch.tensor([valid for _, valid in padded]),
        "index": index,
    }
