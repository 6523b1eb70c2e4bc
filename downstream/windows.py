"""Sliding windows over whole videos, for `--sliding_window_stride`."""

from typing import Any

import torch
from torch.utils.data import Dataset

from data_loader.dataset import VideoDataset
from data_loader.failures import Failure
from data_loader.sampling import sample_frames, window_shifts
from data_loader.transforms import pad_clip
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

    def windows(self, vlen: int) -> list[list[int]]:
        """The frames of each window of a video of `vlen` frames."""
        num_frames = self.dataset.num_frames
        shifts = window_shifts(num_frames, vlen, self.stride)
        return [sample_frames(num_frames, vlen, shift=shift) for shift in shifts]

    def __getitem__(self, index: int) -> dict[str, Any]:
        data, windows = self.dataset, list[list[int]]()

        def choose(video: Video) -> list[int]:
            windows[:] = self.windows(len(video))
            return [frame for window in windows for frame in window]

        try:
            with data.records.video_file(index) as path, open_video(path, data.reader, data.timeout) as video:
                frames, _ = read_in_parts(video, choose, data.transform)
        except VideoReadError as error:
            return {"index": index, "missing": Failure.of(error)}
        padded = [pad_clip(clip, data.num_frames) for clip in frames.split(len(windows[0]))]
        return {
            "video": torch.stack([video for video, _ in padded]),
            "valid_frames": torch.tensor([valid for _, valid in padded]),
            "index": index,
        }
