"""Search your videos by text, image or video: the features of feature_extraction.py, nearest first.

The number before each video is the cosine of its vector to that of the query. Features of windows (--window
10 of feature_extraction.py) tell when something happens, too.

    python downstream/search.py "a dog runs" "the sea at night" --features films.safetensors
    python downstream/search.py --features films.safetensors clips.npz    # asks for queries
    python downstream/search.py queries.txt --features films.safetensors --output found.csv
    python downstream/search.py --near clip.mp4 --features films.safetensors --page found.html
    python downstream/search.py "at night" --image dog.jpg --together 1 0.5 -f clips.npz
    python downstream/search.py goal -f films.safetensors --where 'duration>600' label=sport
    python downstream/search.py --features films.safetensors --serve    # a page that searches

FILE.index beside the features keeps what was prepared for searching; it may be deleted. As objects: `from
downstream.search import VideoIndex`. docs/search.md has more.
"""

import argparse
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream.inputs import read_texts
from downstream.options import add_checkpoint_option, add_device_option, positive
from downstream.report.pages import write_page
from downstream.report.pictures import thumbnails
from downstream.vector_search.columns import Condition
from downstream.vector_search.queries import Query, QueryMaker, QueryModel, load_query_model, together
from downstream.vector_search.videos import Hit, VideoIndex, clock
from utils.commands import CommandParser
from utils.errors import one_line_interrupts, run_errors, user_errors
from utils.files import check_folder, whole_file
from utils.processes import leaving_group
from utils.text import counted, one_line, told_apart

__all__ = ["Hit", "VideoIndex", "clock"]

TABLES = (".csv", ".jsonl", ".parquet")


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


def asked_for(args: argparse.Namespace) -> list[tuple[Callable[[QueryMaker, Any], Query], Any]]:
    """What the command line asks for: methods of a QueryMaker, each with what it is given."""
    texts = read_texts(args.queries) if args.queries else []
    given = (
        (QueryMaker.text, texts),
        (QueryMaker.image, args.image),
        (QueryMaker.video, args.near),
        (QueryMaker.row, args.row),
    )
    return [(make, value) for make, values in given for value in values]


def print_hits(query: str, hits: Iterable[Hit], seconds: float) -> None:
    print(f"\n{query}  ({1000 * seconds:.0f} ms)")
    for place, hit in enumerate(hits, 1):
        print(f"{place:4d}  {hit.similarity:6.3f}  {one_line(hit.path)}  {hit.times}".rstrip())


def write_search_page(path: Path, found: Sequence[tuple[str, list[Hit]]], facts: dict[str, str]) -> None:
    """The hits of each query as pictures, in one self-contained HTML file."""
    shown = thumbnails({hit.name: hit.picture for _, hits in found for hit in hits})
    names = told_apart(hit.path for _, hits in found for hit in hits)
    words = ", ".join(query for query, _ in found[:3]) + (
        f" and {len(found) - 3} more" if len(found) > 3 else ""
    )
    write_page(path, "search", "Search", {**facts, "queries": words}, shown=shown, found=found, names=names)


def write_hits(path: Path, found: Sequence[tuple[str, list[Hit]]]) -> None:
    """A row a hit: "query", "rank" from 1, "similarity", "row" of the features, and their columns; one that
    has such a name itself is called "features.rank".

    Bytes in names of files that are not UTF-8 become escapes, "\\udce9".
    """
    import pandas as pd

    rows = []
    for query, hits in found:
        for rank, hit in enumerate(hits, 1):
            row = {"query": query, "rank": rank, "similarity": hit.similarity, "row": hit.row}
            row |= {f"features.{name}" if name in row else name: x for name, x in hit.columns.items()}
            rows.append({name: _escaped(value) for name, value in row.items()})
    frame = pd.DataFrame(rows, columns=None if rows else ["query", "rank", "similarity", "row", "path"])
    with whole_file(path) as unfinished:
        if path.suffix == ".parquet":
            frame.to_parquet(unfinished, index=False)
        elif path.suffix == ".jsonl":
            frame.to_json(unfinished, orient="records", lines=True)
        else:
            frame.to_csv(unfinished, index=False)


def _escaped(value: Any) -> Any:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("python downstream/search.py", __doc__)
    what = parser.add_argument_group("what to look for")
    what.add_argument("queries", nargs="*", metavar="QUERY", help="texts, or one file of a text a line")
    what.add_argument("--image", nargs="+", default=[], metavar="FILE", help="what looks like these pictures")
    what.add_argument("--near", nargs="+", default=[], metavar="FILE", help="what is like these videos")
    what.add_argument(
        "--row",
        nargs="+",
        default=[],
        type=natural,
        metavar="N",
        help="what is like these rows of the table, from 0, themselves left out; the numbers go on "
        "from file to file",
    )
    what.add_argument(
        "--together",
        nargs="*",
        type=float,
        metavar="WEIGHT",
        help="one query that is the sum of all, each times its weight (default: 1; below 0: unlike it); the "
        "order is texts, images, videos, rows",
    )
    where = parser.add_argument_group("where to look")
    where.add_argument(
        "-f",
        "--features",
        nargs="+",
        required=True,
        metavar="FILE",
        help="features of videos or of windows, all made by the same model",
    )
    where.add_argument(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="CONDITION",
        help="only rows for which all hold: COLUMN=VALUE, or with != < <= > >=",
    )
    found = parser.add_argument_group("what comes out")
    found.add_argument("-k", "--top", type=positive, default=10, metavar="K", help="how many to show")
    found.add_argument(
        "--one-per-video", action="store_true", help="show each video once, with its best window"
    )
    found.add_argument(
        "--page", metavar="FILE", help="also write what was found as an HTML page with pictures"
    )
    found.add_argument(
        "--output",
        metavar="FILE",
        help=f"also write what was found as a table, with all columns: {', '.join(TABLES)}",
    )
    page = parser.add_argument_group("a page that searches")
    page.add_argument(
        "--serve",
        action="store_true",
        help="open a page for this machine's browser, which searches the files of features one by one",
    )
    page.add_argument("--port", type=natural, default=8000, help="its port (default: 8000; 0: any)")
    page.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, for this machine alone)"
    )
    model = parser.add_argument_group("the model")
    add_checkpoint_option(model)
    add_device_option(model)
    return parser


def natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def check_outputs(args: argparse.Namespace) -> None:
    """Raises ValueError, WriteError: what is found could not be written."""
    if args.output and Path(args.output).suffix not in TABLES:
        raise ValueError(f"--output {args.output} must end in one of {', '.join(TABLES)}")
    for file in filter(None, (args.page, args.output)):
        check_folder(Path(file).expanduser().parent)


def serve_page(args: argparse.Namespace) -> None:
    """--serve, until Ctrl-C. Raises ValueError: a missing package, a mistake in the files, a port in use."""
    if asked_for(args) or args.together is not None or args.where or args.page or args.output:
        raise ValueError("--serve searches from its page: leave out queries, --where, --page and --output")
    try:
        from downstream.vector_search.server import build_app, listen, serve
    except ImportError as error:
        raise ValueError(f"--serve needs a package ({error}): pip install starlette uvicorn") from error
    models: dict[tuple[Any, ...], QueryModel] = {}

    def load(metadata: dict[str, Any]) -> QueryModel:
        key = tuple(metadata.get(name) for name in ("arch", "checkpoint_sha256", "num_frames"))
        if key not in models:
            models[key] = load_query_model(args.checkpoint, metadata, args.device)
        return models[key]

    with listen(args.host, args.port) as listening:  # before the model is loaded, which takes longer
        serve(build_app(args.features, load, [args.host, socket.gethostname()]), listening)


@one_line_interrupts("nothing was to be kept; the same command searches again")
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.serve:
        with user_errors():
            serve_page(args)
        return 0
    with user_errors():
        given = asked_for(args)
        if args.together is not None and not given:
            raise ValueError("--together needs queries: texts, --image, --near or --row")
        conditions = [Condition.parse(text) for text in args.where]
        check_outputs(args)
        index, metadata = VideoIndex.from_files(args.features)
        maker = QueryMaker(index, lambda: load_query_model(args.checkpoint, metadata, args.device))
        allowed = index.matching(conditions)
        # read and embedded before the first is looked up, so that a mistake in the last is told at once
        queries: Iterable[Query] = [make(maker, value) for make, value in given]
        if args.together is not None:
            queries = [together(list(queries), args.together)]
        if not given:
            queries = map(maker.text, typed_queries()) if maker.model else ()
    arch = metadata.get("arch", "an unknown model")
    data = f"{counted(len(index), 'vectors')} of {counted(index.videos, 'videos')}"
    where = "" if allowed is None else f"; {allowed.sum()} of them {' '.join(args.where)}"
    print(f"{data}, {arch}{where}")
    found = []
    with leaving_group(), run_errors():
        for query in queries:
            begin = time.perf_counter()
            choice = index.matching(conditions, without=query.rows) if query.rows else allowed
            (hits,) = index.search(query.vector[None], args.top, args.one_per_video, choice)
            print_hits(query.text, hits, time.perf_counter() - begin)
            found.append((query.text, hits))
        print()
        if args.output:
            write_hits(Path(args.output).expanduser(), found)
            print(f"table: {args.output}")
        if args.page:
            facts = {"model": str(arch), "data": data + where}
            write_search_page(Path(args.page).expanduser(), found, facts)
            print(f"page: {args.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
