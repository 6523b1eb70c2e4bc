"""From a record to frames, crop, mask and text."""

import logging
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import Dataset

from data_loader.failures import Failure, sample_or_replacement
from data_loader.masking import tube_mask
from data_loader.records import Record, Records
from data_loader.sampling import clip_times, draw_segment, part_bounds, sample_frames, span_frames
from data_loader.spans import Span, following_spans
from data_loader.transcripts import LATE_WORDS, Transcript
from data_loader.transforms import Transform, clip_transform, pad_clip
from data_loader.video import FrameCache, Video, VideoReadError, read_frames

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Records)

VIEWS = ("train", "val", "test")

FrameChoice = Callable[[Video, np.random.Generator], list[int]]  # from an open video to the frames wanted


def known_reader(reader: str) -> str:
    """The reader to use for a config's: "cv2", the release's for YT-Temporal alone, becomes the default.

    OpenCV's frames are short or repeated on damaged and cut files, without a word; its seeks are slow.
    """
    if reader == "cv2":
        logger.warning("reader cv2 is read as pyav: OpenCV repeats or drops frames of some files silently")
        return "pyav"
    return reader


class VideoDataset(Dataset):
    """A clip, with texts, of each record.

    Views: "train" draws random frames, one random crop and a tube mask; "val" (validation during training)
    random frames, the centre crop and a tube mask; "test" uniform frames, the centre crop, all patches.

    An item is a dict: "video" uint8 [num_frames, 3, image_size, image_size], zeros from frame
    "valid_frames" (int) on; "text" list[str], K of them, "label" and "answer" (int), of records that have
    them; "keep_ind" int64 [n], patches kept (only with a mask); "index" int; "id" str; "failures" list of
    Failures, the files that this sample replaces. A narrated video gives a random segment of `num_clips`
    clips: frames from the whole segment, the words said in each clip as "text" (maybe an empty one), and
    "problems", what was mended in its transcript. A video with captioned spans gives `num_clips` of them that
    follow one another: frames from each alone, its caption as one "text".

    A key is an index, or (epoch, index). All that is random in a sample is drawn from a generator seeded by
    (seed, data set, epoch, index), so a sample does not depend on the rank, the worker or what came before.

    A file that cannot be read is replaced in "train" by another sample, drawn from the same generator. In
    "val" it gives {"index", "id", "missing": Failure}, so that no sample counts twice; in "test" it raises
    VideoReadError, or with `allow_missing` gives the same.
    """

    def __init__(
        self,
        records: Records,
        view: str = "test",
        *,
        name: str = "videos",
        num_frames: int = 12,
        image_size: int = 224,
        mask_ratio: float | None = None,
        num_patches: int | None = None,
        reader: str = "pyav",
        timeout: float | None = None,
        cache_mb: float = 0,
        seed: int = 0,
        allow_missing: bool = False,
        transform: Transform | None = None,
    ):
        """
        Args:
            name: of the data set; samples of two sets differ by it.
            mask_ratio: share of the patches of a frame that is hidden; needs `num_patches`, their number.
            reader, timeout: as in `read_frames`.
            cache_mb: memory for decoded small videos, in every worker.
            transform: from frames to a clip; None is the view's, to `image_size`.
        """
        if view not in VIEWS:
            raise ValueError(f"unknown view {view!r}: choose one of {', '.join(VIEWS)}")
        if num_frames < records.min_frames:
            raise ValueError(
                f"num_frames is {num_frames}, but a sample has {records.num_clips} spans (num_clips), each "
                "of which gives one at least"
            )
        if mask_ratio and num_patches is None:
            raise ValueError("a mask ratio needs num_patches, the number of patches of a frame")
        self.records, self.view, self.name = records, view, name
        self.num_frames, self.image_size = num_frames, image_size
        self.mask_ratio = mask_ratio if view != "test" else None
        self.num_patches = num_patches
        self.reader, self.timeout = known_reader(reader), timeout
        self.cache = FrameCache(int(cache_mb * 2**20)) if cache_mb else None
        self.seed, self.salt = seed, zlib.crc32(name.encode())
        self.allow_missing = allow_missing
        self.transform = transform or clip_transform(view, image_size)
        self.how = "uniform" if view == "test" else "rand"  # frames are chosen

    def records_as(self, kind: type[R]) -> R:
        """The records, which are of that kind. Raises ValueError: they are of another."""
        if not isinstance(self.records, kind):
            raise ValueError(
                f"the data of {self.name} are {type(self.records).__name__}, {kind.__name__} are needed: the "
                "config's task and the type of its data do not go together"
            )
        return self.records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, self.salt, epoch, index])
        if self.view != "train":
            return self.evaluation_item(index, rng)
        read = partial(self.sample, rng=rng)
        return sample_or_replacement(read, index, len(self), rng, f"{self.name} ({self.records.root})")

    def evaluation_item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        try:
            return {**self.sample(index, rng), "failures": []}
        except VideoReadError as error:
            if self.view == "test" and not self.allow_missing:
                raise
            return {"index": index, "id": self.records.id(index), "missing": Failure.of(error)}

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """An item without its failures. Raises VideoReadError."""
        record = self.records[index]
        item: dict[str, Any] = {"index": index, "id": record.id}
        for key in ("label", "answer"):
            if getattr(record, key) is not None:
                item[key] = getattr(record, key)
        if record.pieces:
            runs = following_spans(np.array([piece.span for piece in record.pieces]), record.num_clips)
            pieces = [record.pieces[i] for i in runs[rng.integers(len(runs))]]
            span = pieces[0].span.start, max(piece.span.end for piece in pieces)
            item |= self.read(index, rng, partial(self.choose_in_pieces, pieces), span)
            item["text"] = [self.caption(piece, rng) for piece in pieces]
            return item
        if record.transcript is None:
            item |= self.read(index, rng, partial(self.choose_frames, span=record.span), record.span)
            if record.captions:
                item["text"] = [self.caption(record, rng)]
            return item
        return {**item, **self.narrated(index, record.transcript, record.num_clips, rng)}

    def narrated(
        self, index: int, transcript: Transcript, num_clips: int, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Frames of a segment, and what is said in each of its clips."""
        problems = transcript.problems
        if transcript.duration is not None:
            segment = draw_segment(transcript.duration, num_clips, rng)
            choose = partial(self.choose_in_segment, *segment, transcript.duration)
            item = self.read(index, rng, choose)
        else:
            drawn: list[tuple[tuple[float, float], float]] = []

            def choose_in_video(video: Video, rng: np.random.Generator) -> list[int]:
                drawn.append((draw_segment(video.duration, num_clips, rng), video.duration))
                return self.choose_in_segment(*drawn[-1][0], video.duration, video, rng)

            item = self.read(index, rng, choose_in_video)
            segment, duration = drawn[-1]
            if transcript.outlasts(duration):
                problems = (*problems, LATE_WORDS)
        item["text"] = [transcript.text(*clip) for clip in clip_times(*segment, num_clips)]
        return {**item, "problems": problems}

    def caption(self, record: Record, rng: np.random.Generator) -> str:
        """One of a record's captions."""
        return record.captions[int(rng.integers(len(record.captions))) if self.view == "train" else 0]

    def read(
        self,
        index: int,
        rng: np.random.Generator,
        choose: FrameChoice,
        span: tuple[float, float] | None = None,
    ) -> dict[str, Any]:
        """The video part of an item. span: seconds of the video that hold the frames."""
        seed = int(rng.integers(2**63))  # a reader may ask twice and should get the same answer

        def chosen(video: Video) -> list[int]:
            return choose(video, np.random.default_rng(seed))

        with self.records.video_file(index) as path:
            cache = self.cache if path == self.records.path(index) else None  # it knows videos by their files
            frames, _, _ = read_frames(path, chosen, self.reader, self.timeout, cache, span)
        video, valid = pad_clip(self.transform(frames, rng), self.num_frames)
        item: dict[str, Any] = {"video": video, "valid_frames": valid}
        if self.mask_ratio and self.num_patches:
            item["keep_ind"] = tube_mask(self.num_patches, self.mask_ratio, rng)
        return item

    def choose_frames(self, video: Video, rng: np.random.Generator, span: Span | None = None) -> list[int]:
        """The frames to take from a file, or from a span of it."""
        frames = frames_of(video, span)
        return [frames[i] for i in sample_frames(self.num_frames, len(frames), self.how, rng)]

    def choose_in_pieces(self, pieces: Sequence[Record], video: Video, rng: np.random.Generator) -> list[int]:
        """The frames to take from spans of a file, as many from each as nearly as can be."""
        numbers = np.diff(part_bounds(len(pieces), self.num_frames)).tolist()
        chosen = []
        for piece, number in zip(pieces, numbers, strict=True):
            frames = frames_of(video, piece.span)
            chosen += [frames[i] for i in sample_frames(number, len(frames), self.how, rng)]
        return chosen

    def choose_in_segment(
        self, start: float, end: float, duration: float, video: Video, rng: np.random.Generator
    ) -> list[int]:
        """The frames to take from a segment, in seconds of the `duration` that the transcript gives.

        As in the official release the video is taken to last so long: most are up to a second longer.
        """
        times = video.times * (duration / max(video.duration, 1e-6))
        return span_frames(times, duration, start, end, self.num_frames, self.how, rng)

    @property
    def video_paths(self) -> list[Path]:
        return [self.records.path(index) for index in range(len(self))]


def frames_of(video: Video, span: Span | None) -> range:
    """The frames that a record takes its own from. Raises VideoReadError: the span is none of the video's."""
    if span is None:
        return range(len(video))
    if fault := span.fault(video.duration):
        raise VideoReadError(video.path, fault)
    return span.frames(video.times)
