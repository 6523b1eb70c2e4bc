"""A data set is a function from its list files to records; `VideoDataset` turns a record into a clip."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_loader.failures import Failure
from data_loader.spans import Span, following_spans
from data_loader.strings import Strings
from data_loader.transcripts import Transcript


@dataclass(frozen=True)
class Record:
    """A sample of a data set: a video file, or a span of it, and what belongs to it.

    id: its name in the data set. path: the file, or what to call it in messages where it lies in a shard.
    span: the piece of the file that it is; None for all of it.
    captions: texts of which training draws one; everything else takes the first.
    label: the number of its class, from 0. answer: which of its options is right.
    transcript: of a narrated video, a segment of which, `num_clips` clips with their words, is a sample.
    pieces: captioned spans of the file in the order of their starts, of which `num_clips` that follow one
    another are a sample.
    """

    id: str
    path: Path
    span: Span | None = None
    captions: Sequence[str] = ()
    label: int | None = None
    answer: int | None = None
    transcript: Transcript | None = None
    pieces: Sequence["Record"] = ()
    num_clips: int = 1


class Records:
    """The records of a data set, in columns: millions of them are a few arrays, which workers share.

    root: the folder of the videos. ids: the records' names. file_of: the file below `root` of an id.
    spans: float64 [N, 2], start and end of each as `spans.read_spans` gives them; None for whole videos.
    Subclasses add what belongs to a video. num_clips: of a sample, each with a text of its own. damage: what
    there would be but cannot be read, so that it is no record. min_frames: the fewest that a sample can have.
    """

    num_clips = 1
    min_frames = 1
    damage: Sequence[Failure] = ()
    spans: np.ndarray | None = None

    def __init__(self, root: Path, ids: Iterable[str], file_of: Callable[[str], str] = str):
        self.root, self.ids, self.file_of = root, Strings(ids), file_of

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, index: int) -> str:
        """The name of a record; nothing else is read."""
        return self.ids[index]

    def path(self, index: int) -> Path:
        """The file of a record; nothing else is read."""
        return self.root / self.file_of(self.ids[index])

    def span(self, index: int) -> Span | None:
        """The piece of its file that a record is; nothing else is read."""
        return None if self.spans is None else Span(*self.spans[index].tolist())

    def __getitem__(self, index: int) -> Record:
        """Raises VideoReadError where something that belongs to the video cannot be read."""
        return Record(self.id(index), self.path(index), self.span(index))

    @contextmanager
    def video_file(self, index: int) -> Iterator[Path]:
        """A file to read while the context lasts: a video in a shard is unpacked for so long."""
        yield self.path(index)


class CaptionRecords(Records):
    """Videos with one caption or more.

    captions: all of them, those of a video one after another. caption_video: int64 [captions], the video of
    each.
    """

    def __init__(
        self,
        root: Path,
        ids: Sequence[str],
        captions: Sequence[str],
        file_of: Callable[[str], str] = str,
        join: bool = True,
    ):
        """`ids` and `captions` are those of each row of a list; `join` makes one record of rows side by side
        that have the same id."""
        first = np.ones(len(ids), dtype=bool)  # of its record's captions
        if join:
            first[1:] = np.fromiter((a != b for a, b in pairwise(ids)), dtype=bool, count=len(ids) - 1)
        super().__init__(root, (ids[row] for row in np.flatnonzero(first).tolist()), file_of)
        self.captions = Strings(captions)
        self.caption_start = np.append(np.flatnonzero(first), len(ids))

    @property
    def caption_video(self) -> np.ndarray:
        return np.repeat(np.arange(len(self)), np.diff(self.caption_start))

    def __getitem__(self, index: int) -> Record:
        captions = self.captions[self.caption_start[index] : self.caption_start[index + 1]]
        return Record(self.id(index), self.path(index), self.span(index), captions)


class SequenceRecords(Records):
    """Videos with captioned spans, `num_clips` of which, one following another, are a sample.

    left_out: how many videos have no such run of spans, see `following_spans`; they are no records.
    """

    def __init__(self, pieces: CaptionRecords, num_clips: int):
        """pieces: a record of each span. Raises ValueError where no video has `num_clips` that follow."""
        assert pieces.spans is not None, "sequences are of spans"
        places: dict[str, int] = {}  # of files, in the order of the list
        place = np.array([places.setdefault(pieces.file_of(name), len(places)) for name in pieces.ids])
        order = np.lexsort((pieces.spans[:, 1], pieces.spans[:, 0], place))
        bounds = np.flatnonzero(np.diff(place[order], prepend=-1, append=-1))
        videos = [order[first:stop] for first, stop in pairwise(bounds)]
        kept = [video for video in videos if len(following_spans(pieces.spans[video], num_clips))]
        self.left_out = len(videos) - len(kept)
        if not kept:
            raise ValueError(
                f"none of its {len(videos)} videos has {num_clips} captioned spans that follow one another; "
                "a sample of sorting is made of them"
            )
        super().__init__(pieces.root, (pieces.file_of(pieces.ids[video[0]]) for video in kept))
        self.pieces, self.num_clips, self.min_frames = pieces, num_clips, num_clips
        self.members = np.concatenate(kept)
        self.start = np.cumsum([0, *map(len, kept)])

    def __getitem__(self, index: int) -> Record:
        members = self.members[self.start[index] : self.start[index + 1]].tolist()
        pieces = [self.pieces[member] for member in members]
        return Record(self.id(index), self.path(index), pieces=pieces, num_clips=self.num_clips)
