"""YT-Temporal: narrated videos, K clips of a segment with what is said in each (TVTSv2, section 3)."""

from pathlib import Path

import numpy as np

from data_loader.base import VideoDataset
from data_loader.lists import need_folder, prepare_hint, read_table
from data_loader.sampling import span_frames
from data_loader.strings import Strings
from data_loader.transcripts import Transcript, TranscriptError, load_transcript
from data_loader.video import VideoReadError

GAP = 1  # seconds between two clips
CLIP_SECONDS = (3, 5)  # the shortest and the longest clip


class YTTemporal(VideoDataset):
    """`meta`/yttemporal_{train,val}.csv, tab-separated, column Name = subset_87/data/ID.mp4.

    The video is `root`/videos/<Name>, its transcript `root`/videos/subset_87/annotations/ID.json. A sample
    is a segment of `num_clips` clips with a gap of one second; its frames come from the whole segment, its
    texts are the words said in each clip, in their order in time (a clip without words has an empty text).
    "problems" says what had to be mended in its transcript. Aligning takes some milliseconds a transcript;
    `transcript_cache` names a folder where the results are kept.
    """

    name = "yttemporal"

    def __init__(self, split: str, *, num_clips: int = 4, transcript_cache: str | None = None, **common):
        super().__init__(split, **common)
        self.num_clips, self.transcript_cache = num_clips, transcript_cache
        self.open_list()

    def open_list(self) -> None:
        path = self.meta / f"yttemporal_{'train' if self.split == 'train' else 'val'}.csv"
        table = read_table(path, "the videos of YT-Temporal", prepare_hint(self.name))
        self.names = Strings(table.column("Name"))
        if not self.names:
            raise ValueError(f"{path} lists no videos")
        need_folder(self.root / "videos", "the videos of YT-Temporal, videos/subset_87/data/<id>.mp4")

    def __len__(self) -> int:
        return len(self.names)

    def video_path(self, index: int) -> Path:
        return self.root / "videos" / self.names[index]

    def video_id(self, index: int) -> str:
        return self.names[index]

    def transcript_path(self, index: int) -> Path:
        video = self.video_path(index)
        return video.parent.parent / "annotations" / f"{video.stem}.json"

    def transcript(self, index: int) -> Transcript:
        """Raises VideoReadError: without its transcript a video is no sample."""
        path = self.transcript_path(index)
        try:
            return load_transcript(path, self.transcript_cache)
        except TranscriptError as error:
            raise VideoReadError(path, f"transcript: {error}") from error

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        transcript = self.transcript(index)
        start, end = draw_segment(transcript.duration, self.num_clips, rng)
        how = "uniform" if self.view == "test" else "rand"

        def choose(vlen: int, rng: np.random.Generator) -> list[int]:
            return span_frames(start, end, transcript.duration, self.num_frames, vlen, how, rng)

        item = self.read(index, rng, choose)
        item["text"] = [transcript.text(*clip) for clip in clip_times(start, end, self.num_clips)]
        return {**item, "index": index, "id": self.video_id(index), "problems": transcript.problems}


def draw_segment(duration: float, num_clips: int, rng: np.random.Generator) -> tuple[float, float]:
    """Start and end, in seconds, of a random segment of clips of 3, 4 or 5 s and their gaps.

    A video too short for it is taken whole, but for its last second.
    """
    duration = int(duration)
    length = int(rng.integers(CLIP_SECONDS[0], CLIP_SECONDS[1] + 1)) * num_clips + GAP * (num_clips - 1)
    if duration < length + 1:
        return 0.0, float(max(duration - 1, 1))
    start = int(rng.integers(0, duration - length)) + float(rng.random())
    return start, min(duration - 1, start + length)


def clip_times(start: float, end: float, num_clips: int) -> list[tuple[float, float]]:
    """Equal clips of a segment with gaps of a second between them (none where there is no time for them)."""
    gap = GAP if end - start > GAP * (num_clips - 1) else 0
    length = (end - start - gap * (num_clips - 1)) / num_clips
    starts = [start + k * (length + gap) for k in range(num_clips)]
    return [(s, s + length) for s in starts]
