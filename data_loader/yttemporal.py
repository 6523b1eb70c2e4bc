"""YT-Temporal: narrated videos, K clips of a segment with what is said in each (TVTSv2, section 3)."""

from collections.abc import Iterable
from pathlib import Path

from data_loader.asr import TranscriptError, load_transcript
from data_loader.lists import need_folder, prepare_hint, read_table
from data_loader.records import Record, Records
from data_loader.video import VideoReadError


class NarratedRecords(Records):
    """Videos with transcripts. Without its transcript a video is no sample: it counts as unreadable."""

    def __init__(self, root: Path, ids: Iterable[str], num_clips: int, transcript_cache: str | Path | None):
        super().__init__(root, ids, "videos/{}".format)
        self.num_clips, self.transcript_cache = num_clips, transcript_cache

    def transcript_path(self, index: int) -> Path:
        video = self.path(index)
        return video.parent.parent / "annotations" / f"{video.stem}.json"

    def __getitem__(self, index: int) -> Record:
        path = self.transcript_path(index)
        try:
            transcript = load_transcript(path, self.transcript_cache)
        except TranscriptError as error:
            raise VideoReadError(path, f"transcript: {error}") from error
        return Record(self.id(index), self.path(index), transcript=transcript, num_clips=self.num_clips)


def yttemporal(
    split: str, root: Path, meta: Path, *, num_clips: int = 4, transcript_cache: str | Path | None = None
) -> NarratedRecords:
    """`meta`/yttemporal_{train,val}.csv, tab-separated, column Name = subset_87/data/ID.mp4.

    The video is `root`/videos/<Name>, its transcript `root`/videos/subset_87/annotations/ID.json. A sample is
    a segment of `num_clips` clips with a gap of one second; its frames come from the whole segment, its texts
    are the words said in each clip, in their order in time (a clip without words has an empty text). Aligning
    takes some milliseconds a transcript; `transcript_cache` names a folder where the results are kept.
    """
    path = meta / f"yttemporal_{'train' if split == 'train' else 'val'}.csv"
    table = read_table(path, "the videos of YT-Temporal", prepare_hint("yttemporal"))
    names = table.column("Name")
    need_folder(root / "videos", "the videos of YT-Temporal, videos/subset_87/data/<id>.mp4")
    return NarratedRecords(root, names, num_clips, transcript_cache)
