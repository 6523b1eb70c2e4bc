"""Narrated videos, K clips of a segment with what is said in each (TVTSv2, section 3): YT-Temporal, and any
list of videos and transcripts ("narrated")."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_loader import subtitles
from data_loader.lists import list_of_split, need_folder, prepare_hint, read_table
from data_loader.records import Record, Records
from data_loader.strings import Strings
from data_loader.text_rows import file_namer, read_rows
from data_loader.transcripts import TranscriptError, load_transcript
from data_loader.video import VideoReadError


class NarratedRecords(Records):
    """Videos with transcripts. Without its transcript a video is no sample: it counts as unreadable."""

    def __init__(
        self,
        root: Path,
        ids: Iterable[str],
        file_of: Callable[[str], str],
        num_clips: int,
        transcript_cache: str | Path | None,
    ):
        super().__init__(root, ids, file_of)
        self.num_clips, self.transcript_cache = num_clips, transcript_cache

    def transcript_path(self, index: int) -> Path:
        """Where YT-Temporal has it."""
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
    return NarratedRecords(root, names, "videos/{}".format, num_clips, transcript_cache)


class ListedNarration(NarratedRecords):
    """Videos whose transcripts a list names."""

    def __init__(self, root: Path, ids: Iterable[str], transcripts: Sequence[str], **options: Any):
        super().__init__(root, ids, **options)
        self.transcripts = Strings(transcripts)

    def transcript_path(self, index: int) -> Path:
        return self.root / self.transcripts[index]


def narrated(
    split: str,
    root: Path,
    meta: Path,
    *,
    files: str | dict[str, str],
    path_column: str | int = "path",
    transcript_column: str | int = "transcript",
    suffix: str = "",
    sep: str | None = None,
    num_clips: int = 4,
    transcript_cache: str | Path | None = None,
) -> ListedNarration:
    """Any list, in a form of `read_rows`, with columns of videos and of transcripts, both below `root`.

    Transcripts are subtitles (.vtt, .srt, YouTube's json3), Whisper's JSON, or YT-Temporal's. A sample is as
    YT-Temporal's; where a transcript does not say how long the video is, the video itself does.

    Args:
        files: the list, or one for each split; below `meta` unless absolute.
        path_column, transcript_column: names, or places counted from 0. suffix: added to every path of a
            video. sep: what separates the columns; by default a tab for .tsv and a comma for anything else.
        num_clips, transcript_cache: as of `yttemporal`.
    """
    path = meta / list_of_split("narrated", files, split)
    rows = read_rows(path, "videos and their transcripts", path_column, transcript_column, sep)
    if rows.spans is not None:
        raise ValueError(f"{path} has columns of starts and ends: a narrated video is read as a whole")
    if any(name.lower().endswith(subtitles.FORMS) for name in rows.texts):
        subtitles.import_webvtt()
    return ListedNarration(
        root,
        rows.names,
        rows.texts,
        file_of=file_namer(rows, suffix),
        num_clips=num_clips,
        transcript_cache=transcript_cache,
    )
