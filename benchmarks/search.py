"""How fast a search answers: python benchmarks/search.py

Random vectors in an index of the size asked for; then queries one at a time, as a person asks them: embedding
the text, and finding the nearest. --vectors 2000 --arch TVTSv2_Demo for a quick look.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import faiss
import numpy as np
import torch

from CLIP import tokenize
from downstream.embedder import Embedder
from downstream.feature_files import FeatureTable
from downstream.search import BLOCK, VideoIndex
from model import create_model
from utils.processes import setup

WINDOWS = 360  # of a video, so that a million are 2,778 hours in windows of ten seconds
QUERIES = [f"a person rides a bicycle along the sea, take {i}" for i in range(20)]


def random_table(first: int, rows: int, dim: int) -> FeatureTable:
    """Rows `first` … of a table of windows of ten seconds."""
    places = np.arange(first, first + rows)
    start = 10.0 * (places % WINDOWS)
    columns = {
        "path": [f"/films/{video:05d}.mp4" for video in places // WINDOWS],
        "start": start,
        "end": start + 10,
        "duration": np.full(rows, 10.0 * WINDOWS),
    }
    features = np.random.default_rng(first).standard_normal((rows, dim), dtype=np.float32)
    return FeatureTable(features, columns, {})


def milliseconds(function: Callable[[Any], Any], inputs: Sequence[Any]) -> dict[str, float]:
    """Median and longest time of a call; the first one, which warms up, does not count."""
    times = []
    for given in inputs:
        begin = time.perf_counter()
        function(given)
        times.append(1000 * (time.perf_counter() - begin))
    return {"median": statistics.median(times[1:]), "max": max(times[1:])}


def measure(vectors: int, arch: str, threads: int) -> dict[str, dict[str, float]]:
    """Milliseconds of embedding a query on the CPU, and of searching for it in two ways."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    model = create_model(arch, sort_head=False)
    embedder = Embedder(model, tokenize, setup("cpu"))
    dim = model.variant.embed_dim
    index = VideoIndex(dim)
    for first in range(0, vectors, BLOCK):
        index.add(random_table(first, min(BLOCK, vectors - first), dim))
    queries = [embedder.encode_texts([query]).numpy() for query in QUERIES]
    return {
        "embedding the query": milliseconds(lambda query: embedder.encode_texts([query]), QUERIES),
        "searching, top 10": milliseconds(lambda query: index.search(query, 10), queries),
        "searching, one per video": milliseconds(lambda query: index.search(query, 10, True), queries),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--arch", default="TVTSv2_B_16", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args(argv)
    print(f"{args.vectors} vectors, {args.arch}, {args.threads} threads")
    for what, found in measure(args.vectors, args.arch, args.threads).items():
        print(f"{what:26}  median {found['median']:7.1f} ms  max {found['max']:7.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
