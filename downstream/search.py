"""Search your videos by text: the features of feature_extraction.py, ranked by how near they are to a query.

    python downstream/feature_extraction.py films/ --window 10 --output films.safetensors
    python downstream/search.py "a dog runs along a beach" --features films.safetensors

As objects: `from downstream.search import VideoIndex`.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss
import numpy as np

from downstream.embedder import Embedder, warn_if_alike
from downstream.encoder import load_encoder
from downstream.feature_files import FeatureTable, load_features
from downstream.inputs import read_texts
from downstream.options import add_checkpoint_option, add_device_option, join_processes, positive
from downstream.pages import STRIP, Picture, thumbnails, write_page
from utils.errors import one_line_interrupts, run_errors, user_errors
from utils.files import check_folder
from utils.processes import leaving_group
from utils.text import counted, one_line

BLOCK = 2**16  # rows normalised at once, so that the features are not held twice
ROW = np.dtype([("video", np.int64), ("start", np.float64), ("end", np.float64), ("duration", np.float64)])
SAME_MODEL = ("arch", "checkpoint_sha256")


@dataclass(frozen=True)
class Hit:
    """A video, or the window [start, end) of it in seconds, and the cosine of its vector to the query's."""

    path: str
    similarity: float
    start: float | None = None
    end: float | None = None
    duration: float = math.nan

    @property
    def times(self) -> str:
        """When it happens, "1:20–1:30"; empty for a whole video."""
        return "" if self.start is None or self.end is None else f"{clock(self.start)}–{clock(self.end)}"

    @property
    def name(self) -> str:
        return f"{self.path} {self.times}".strip()

    @property
    def link(self) -> str:
        """The file's address; players that know media fragments begin at the window."""
        address = Path(self.path).as_uri()
        return address if self.start is None else f"{address}#t={self.start:g},{self.end:g}"

    @property
    def picture(self) -> Picture:
        """What happens in it, from first to last."""
        if self.start is None or self.end is None:
            return Picture(lambda: nullcontext(self.path))
        places = [(self.start + share * (self.end - self.start)) / self.duration for share in STRIP]
        return Picture(lambda: nullcontext(self.path), tuple(places))


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss, with tenths where there are any."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"


class VideoIndex:
    """Feature vectors in memory, searched exhaustively by cosine.

    They are kept as unit vectors in half precision: half the memory (1 GB for a million of 512 numbers) and a
    fifth of the time of float32, for cosines that differ by about 2e-5.
    """

    def __init__(self, dim: int):
        self.vectors = faiss.IndexScalarQuantizer(
            dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self.paths: list[str] = []  # of the videos, each once
        self.rows = np.empty(0, ROW)  # what each vector is of

    @classmethod
    def from_files(cls, files: Sequence[str | Path]) -> tuple["VideoIndex", dict[str, Any]]:
        """The index of all rows of feature files, and the metadata of the first (model, checkpoint hash …).

        Raises:
            FileNotFoundError, ValueError: no such file, none of ours, of texts, or of another model.
        """
        index, metadata = None, {}
        for file in files:
            table = load_features(file, without=("tokens",))
            if "path" not in table.columns:
                raise ValueError(f"{file} holds features of texts; a search needs those of videos")
            finite = np.isfinite(table.features).all(axis=1)
            if not finite.all():
                first = table.columns["path"][int(finite.argmin())]
                raise ValueError(f"{file}: the vector of {first} holds NaN or infinity; extract it again")
            if index is None:
                index, metadata = cls(table.features.shape[1]), table.metadata
            for key in SAME_MODEL:
                if table.metadata.get(key) != metadata.get(key):
                    raise ValueError(
                        f"{file} and {files[0]} were made by different models "
                        f"({key} {table.metadata.get(key)!r} and {metadata.get(key)!r}): "
                        "search them one by one"
                    )
            warn_if_alike(table.features, f"vectors in {file}")
            index.add(table)
        if index is None:
            raise ValueError("no features file given")
        return index, metadata

    def __len__(self) -> int:
        return self.vectors.ntotal

    def add(self, table: FeatureTable) -> None:
        """Add the rows of a table of videos or windows."""
        for first in range(0, len(table), BLOCK):
            self.vectors.add(unit(table.features[first : first + BLOCK]))
        number = {path: i for i, path in enumerate(self.paths)}
        rows = np.zeros(len(table), ROW)
        rows["video"] = [number.setdefault(path, len(number)) for path in table.columns["path"]]
        for name in ("start", "end", "duration"):
            rows[name] = table.columns.get(name, np.nan)
        self.paths = list(number)
        self.rows = np.concatenate([self.rows, rows])

    def search(self, queries: np.ndarray, top: int = 10, one_per_video: bool = False) -> list[list[Hit]]:
        """The `top` nearest rows of each of queries [Q, D], nearest first.

        `one_per_video` gives the best window of each video only, so that one long video cannot fill the list.
        """
        nearest = self._one_per_video if one_per_video else self._nearest
        found = [nearest(query[None], top) for query in unit(queries)]
        return [[self._hit(*hit) for hit in zip(*hits, strict=True)] for hits in found]

    def _nearest(self, query: np.ndarray, number: int) -> tuple[list[int], list[float]]:
        """Rows nearest to query [1, D], and their cosines."""
        similarities, rows = self.vectors.search(query, min(number, len(self)))
        return rows[0].tolist(), similarities[0].tolist()

    def _one_per_video(self, query: np.ndarray, top: int) -> tuple[list[int], list[float]]:
        """The same, of each video the first."""
        number, wanted = 4 * top, min(top, len(self.paths))
        while True:  # how many rows the first `top` videos take up shows only afterwards
            rows, similarities = self._nearest(query, number)
            _, first = np.unique(self.rows["video"][rows], return_index=True)
            if len(first) >= wanted:
                kept = sorted(first.tolist())[:wanted]
                return [rows[i] for i in kept], [similarities[i] for i in kept]
            number *= 4

    def _hit(self, row: int, similarity: float) -> Hit:
        video, start, end, duration = self.rows[row].tolist()
        if math.isnan(start):
            start = end = None
        return Hit(self.paths[video], similarity, start, end, duration)


def unit(vectors: np.ndarray) -> np.ndarray:
    """A copy [N, D] in float32 with rows of length 1; rows of zeros stay."""
    vectors = np.array(vectors, dtype=np.float32, order="C")
    faiss.normalize_L2(vectors)
    return vectors


def load_text_model(checkpoint: str | None, metadata: dict[str, Any], device: str | None) -> Embedder:
    """The model that made the features, to embed queries with.

    Raises:
        FileNotFoundError: no such weights. ValueError: other weights than those of the features.
    """
    context = join_processes(device)
    encoder = load_encoder(metadata["arch"], checkpoint, context)
    if encoder.sha256 != metadata["checkpoint_sha256"]:
        raise ValueError(
            f"the features were made with other weights than {encoder.path} (SHA-256 "
            f"{metadata['checkpoint_sha256'][:12]}…, not {encoder.sha256[:12]}…); "
            "name the file that made them with --checkpoint, or extract the features anew"
        )
    embedder = Embedder(encoder.model, encoder.tokenize, context)
    embedder.encode_texts([""])  # the first pass sets much up; a person should not wait for it
    return embedder


def typed_queries() -> Iterator[str]:
    """Lines from the terminal until an empty one, or from a pipe until its end."""
    prompt = "query (empty to end): " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line:
            yield line
        elif prompt:
            return


def print_hits(query: str, hits: Iterable[Hit], seconds: float) -> None:
    print(f"\n{query}  ({1000 * seconds:.0f} ms)")
    for place, hit in enumerate(hits, 1):
        print(f"{place:4d}  {hit.similarity:6.3f}  {one_line(hit.path)}  {hit.times}".rstrip())


def write_search_page(path: Path, found: Sequence[tuple[str, list[Hit]]], about: str) -> None:
    """The hits of each query as pictures, in one self-contained HTML file."""
    shown = thumbnails({hit.name: hit.picture for _, hits in found for hit in hits})
    queries = [{"text": query, "hits": hits} for query, hits in found]
    write_page(path, "search.html", title="Search", about=about, queries=queries, shown=shown)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Search videos by text, in features that downstream/feature_extraction.py wrote.",
        epilog="examples:\n"
        '  python downstream/search.py "a dog runs" "the sea at night" --features films.safetensors\n'
        "  python downstream/search.py --features films.safetensors clips.npz    asks for queries\n"
        "  python downstream/search.py queries.txt --features films.safetensors --page found.html\n"
        "Features of windows (feature_extraction.py --window 10) tell when something happens, too.\n"
        "The number before each video is the cosine of its vector to that of the query.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "queries", nargs="*", metavar="QUERY", help="what to look for, or one file of a query a line"
    )
    parser.add_argument(
        "-f",
        "--features",
        nargs="+",
        required=True,
        metavar="FILE",
        help="features of videos or of windows, all made by the same model",
    )
    parser.add_argument(
        "-k", "--top", type=positive, default=10, metavar="K", help="how many to show (default: 10)"
    )
    parser.add_argument(
        "--one-per-video", action="store_true", help="show each video once, with its best window"
    )
    parser.add_argument(
        "--page", metavar="FILE", help="also write what was found as an HTML page with pictures"
    )
    add_checkpoint_option(parser)
    add_device_option(parser)
    return parser


@one_line_interrupts("nothing was to be kept; the same command searches again")
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with user_errors():
        queries = read_texts(args.queries) if args.queries else typed_queries()
        index, metadata = VideoIndex.from_files(args.features)
        if args.page:
            check_folder(Path(args.page).expanduser().parent)
        embedder = load_text_model(args.checkpoint, metadata, args.device)
    about = f"{counted(len(index), 'vectors')} of {counted(len(index.paths), 'videos')}, {metadata['arch']}"
    print(about)
    found = []
    with leaving_group(), run_errors():
        for query in queries:
            begin = time.perf_counter()
            embeds = embedder.encode_texts([query]).numpy()
            (hits,) = index.search(embeds, args.top, args.one_per_video)
            print_hits(query, hits, time.perf_counter() - begin)
            found.append((query, hits))
    if args.page:
        with run_errors():
            write_search_page(Path(args.page).expanduser(), found, about)
        print(f"\npage: {args.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
