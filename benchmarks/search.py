"""How fast, how large and how exact a search is.

For each number of vectors: a file of features is written; a process of its own builds the index beside it,
another one opens that and asks. Queries, of texts and of videos, go one at a time, as a person asks them.
Recall is the share of the ten nearest by float32 that are found.

    python benchmarks/search.py --vectors 100000
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import numpy as np
import torch

from benchmarks.common import report
from CLIP import tokenize
from downstream.embedding.embedder import Embedder
from downstream.feature_files import FeatureTable, write_features
from downstream.vector_search.index import index_of, unit
from downstream.vector_search.videos import VideoIndex
from model import create_model
from model.variants import get_variant
from utils.commands import CommandParser
from utils.processes import setup

WINDOWS = 360  # of a film, so that a million are 2,778 hours in windows of ten seconds
SCENE = 6  # windows
TOPICS = 2000
TEXTS = [f"a person rides a bicycle along the sea, take {i}" for i in range(20)]
BLOCK = 2**15
Vectors = dict[str, np.ndarray]


class World:
    """Vectors that resemble embeddings of windows of films, and of queries.

    Windows are alike within a scene, a film and a topic; a few directions vary much, most little. All lie in
    a cone, texts in another one, as CLIP's do. Two windows have a cosine of 0.56, 0.87 in one film, 0.94 side
    by side; a text has 0.03 to any window, and 0.19 to what it describes.
    """

    def __init__(self, rows: int, dim: int):
        self.rng = np.random.default_rng(0)
        self.rows, self.dim = rows, dim
        scale = np.arange(1, dim + 1, dtype=np.float32) ** -0.5
        self.scale = scale / np.linalg.norm(scale)
        self.axis, self.text_axis = unit(self.rng.standard_normal((2, dim), dtype=np.float32)).numpy()
        films = -(-rows // WINDOWS)
        self.topic = self.some(TOPICS)[self.rng.integers(0, TOPICS, films)]
        self.film = self.some(films)

    def some(self, number: int) -> np.ndarray:
        return self.rng.standard_normal((number, self.dim), dtype=np.float32) * self.scale

    def table(self, arch: str) -> FeatureTable:
        places = np.arange(self.rows)
        features = np.empty((self.rows, self.dim), dtype=np.float32)
        for first in range(0, self.rows, BLOCK):
            place = places[first : first + BLOCK]
            film = place // WINDOWS
            scene = self.some(len(place) // SCENE + 1)[(place - first) // SCENE]
            of_film = 0.45 * self.topic[film] + 0.35 * self.film[film]
            features[place] = 0.75 * self.axis + of_film + 0.3 * scene + 0.2 * self.some(len(place))
        columns = {
            "path": [f"/films/{film:05d}.mp4" for film in places // WINDOWS],
            "start": 10.0 * (places % WINDOWS),
            "end": 10.0 * (places % WINDOWS) + 10,
            "duration": np.full(self.rows, 10.0 * WINDOWS),
        }
        return FeatureTable(features, columns, {"arch": arch, "checkpoint_sha256": "0" * 64})

    def queries(self, features: np.ndarray, number: int) -> Vectors:
        """Of texts that describe windows, and of other videos that are like windows; [number, D] each."""
        rows = self.rng.integers(0, self.rows, number)
        film = rows // WINDOWS
        texts = 0.8 * self.text_axis + 0.25 * self.topic[film] + 0.12 * self.film[film]
        return {
            "texts": unit(texts + 0.45 * self.some(number)).numpy(),
            "videos": unit(features[rows] + 0.3 * self.some(number)).numpy(),
        }


def nearest(features: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The ten rows nearest to each of queries [Q, D], by float32: [Q, 10]."""
    asked = torch.from_numpy(queries)
    cosines = [asked @ unit(features[i : i + BLOCK]).T for i in range(0, len(features), BLOCK)]
    return torch.cat(cosines, dim=1).topk(10).indices.numpy()


def milliseconds(function: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    """Median time of a call; the first one, which warms up, does not count."""
    times = []
    for given in inputs:
        begin = time.perf_counter()
        function(given)
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def memory_gib(kind: str) -> float:
    """Of this process: "VmRSS" now, or "VmHWM" at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 2**20


def build(file: Path, threads: int) -> dict[str, float]:
    """Seconds of making the index, and what memory the process took at most."""
    torch.set_num_threads(threads)
    import faiss

    faiss.omp_set_num_threads(threads)
    before = memory_gib("VmRSS")
    begin = time.perf_counter()
    index_of(file)
    return {"build_s": time.perf_counter() - begin, "build_peak_gib": memory_gib("VmHWM") - before}


def ask(file: Path, threads: int, queries: Vectors, truth: Vectors) -> dict[str, float]:
    """Seconds of opening the index; recall and milliseconds of queries; what memory that took."""
    torch.set_num_threads(threads)
    before = memory_gib("VmRSS")
    begin = time.perf_counter()
    index, _ = VideoIndex.from_files([file])
    figures = {"open_s": time.perf_counter() - begin, "open_gib": memory_gib("VmRSS") - before}
    for kind, asked in queries.items():
        found = index.search(asked, 10)
        same = (
            len({hit.row for hit in hits} & set(true))
            for hits, true in zip(found, truth[kind].tolist(), strict=True)
        )
        figures[f"recall_{kind}"] = sum(same) / truth[kind].size
    some = [query[None] for query in queries["texts"][:20]]
    figures["search_ms"] = milliseconds(lambda query: index.search(query, 10), some)
    figures["one_per_video_ms"] = milliseconds(lambda query: index.search(query, 10, True), some)
    return figures | {"asking_gib": memory_gib("VmRSS") - before}


@contextmanager
def own_process() -> Iterator[ProcessPoolExecutor]:
    """A fresh process, so that its memory is that of what it does."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


def measure(vectors: int, arch: str, threads: int, number: int, folder: Path) -> dict[str, Any]:
    world = World(vectors, get_variant(arch).embed_dim)
    table = world.table(arch)
    queries = world.queries(table.features, number)
    truth = {kind: nearest(table.features, asked) for kind, asked in queries.items()}
    file = folder / "features.safetensors"
    write_features(file, table)
    del table
    with own_process() as process:
        figures = process.submit(build, file, threads).result()
    index = file.with_name("features.safetensors.index")
    figures["index_gib"] = index.stat().st_size / 2**30
    with own_process() as process:
        figures |= process.submit(ask, file, threads, queries, truth).result()
    file.unlink()
    index.unlink()
    return {"name": f"{vectors:,} vectors", **figures}


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/search.py", __doc__)
    parser.add_argument(
        "--vectors", type=int, nargs="+", default=[100_000, 1_000_000], help="how many the file holds"
    )
    parser.add_argument("--queries", type=int, default=200, help="for the recall")
    parser.add_argument("--arch", default="TVTSv2_B_32", help="whose vectors, and texts, they are")
    parser.add_argument("--threads", type=int, default=2, help="of the search")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(n, args.arch, args.threads, args.queries, Path(folder)) for n in args.vectors]
    embedder = Embedder(create_model(args.arch, sort_head=False), tokenize, setup("cpu"))
    text = {"name": args.arch, "ms": milliseconds(lambda text: embedder.encode_texts([text]), TEXTS)}
    tables = {"searching": rows, "embedding a text": [text]}
    report(f"search, {args.threads} threads", tables, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
