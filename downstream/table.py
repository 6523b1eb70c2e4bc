"""Many runs in one table: every results.json below some folders, models by data sets, a table a protocol.

Plain figures and those with the dual softmax (DSL) are in tables of their own, the published ones in rows of
their own. A row is a model with its settings, where they are not those of the data set's config. Each cell
leads to the command behind it; two runs of one cell both stand in it. What is no result is named.

    python -m downstream.table results/
    python -m downstream.table results/ --output table.html
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downstream.report import TITLES, format_interval, format_value
from downstream.report.pages import write_page
from downstream.report.runs import Run, find_results, read_runs
from utils.commands import CommandParser
from utils.errors import one_line_interrupts, run_errors, user_errors
from utils.files import write_text
from utils.text import counted

PROTOCOLS = (  # in this order, then others
    *("retrieval", "recognition", "multiple_choice", "linear_probe", "knn", "few_shot", "attentive_probe"),
)
KINDS = {"plain": "", "dsl": ", dual softmax (DSL)"}
LONG = ("R50", "MeanR")  # metrics that a cell has no room for
FORMATS = (".md", ".csv", ".html")


@dataclass(frozen=True)
class Figures:
    """The figures of a run in a cell, with their intervals, or published ones (number None)."""

    text: str
    number: int | None = None
    intervals: str = ""


@dataclass(frozen=True)
class Section:
    """One table: rows of a title and, for each column, whatever runs there are."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[list[Figures]]]]


def sections(runs: Sequence[Run]) -> list[Section]:
    """The tables, one for each protocol, direction, kind (plain, DSL) and set of metrics."""
    places: dict[tuple[Any, ...], list[Run]] = {}
    first: dict[tuple[Any, ...], int] = {}  # of each direction its first place in a run
    for run in sorted(runs, key=lambda run: (_place_of(run.results.task), run.number)):
        for number, (direction, kinds) in enumerate(run.results.metrics.items()):
            task = _place_of(run.results.task)
            first[task, direction] = min(number, first.get((task, direction), number))
            for kind in (kind for kind in KINDS if kind in kinds):
                metrics = tuple(m for m in TITLES if m in kinds[kind] and m not in LONG)
                place = (task, direction, list(KINDS).index(kind), kind, metrics)
                places.setdefault(place, []).append(run)
    return [
        _section(direction, kind, metrics, places[place])
        for place in sorted(places, key=lambda place: (place[0], first[place[:2]], place))
        for _, direction, _, kind, metrics in [place]
    ]


def _place_of(task: str) -> tuple[int, str]:
    return PROTOCOLS.index(task) if task in PROTOCOLS else len(PROTOCOLS), task


def _section(direction: str, kind: str, metrics: Sequence[str], runs: Sequence[Run]) -> Section:
    task = runs[0].results.task.replace("_", " ")
    title = f"{task}, {direction}{KINDS[kind]}: {' / '.join(TITLES[m] for m in metrics)}"
    columns = sorted({run.column for run in runs})
    weights: dict[str, set[str]] = {}
    for run in runs:
        weights.setdefault(run.results.arch, set()).add(run.weights)
    rows: dict[tuple[str, int, str], list[list[Figures]]] = {}

    def cell(model: str, place: int, words: str, column: str) -> list[Figures]:
        row = rows.setdefault((model, place, words), [[] for _ in columns])
        return row[columns.index(column)]

    for run in runs:
        arch, settings = run.results.arch, run.settings_of(kind)
        main = direction == next(iter(run.results.metrics))
        published = run.results.published.get(kind) if main else None
        if published:
            figures = Figures(" / ".join(format_value(published.get(m)) for m in metrics))
            there = cell(arch, 0, "published", run.column)
            if figures not in there:
                there.append(figures)
        of_weights = run.weights if len(weights[arch]) > 1 else ""
        words = ", ".join(filter(None, [of_weights, settings]))
        values = run.results.metrics[direction][kind]
        star = "*" if run.results.failed_files else ""
        shown = " / ".join(format_value(values[m]) for m in metrics) + star
        between = run.results.intervals.get(direction, {}).get(kind, {})
        intervals = " / ".join(format_interval(between.get(m)) for m in metrics) if between else ""
        cell(arch, 1, words, run.column).append(Figures(shown, run.number, intervals))
    return Section(
        title,
        columns,
        [(", ".join(filter(None, [arch, words])), cells) for (arch, _, words), cells in sorted(rows.items())],
    )


def as_markdown(runs: Sequence[Run], failed: Mapping[Path, str]) -> str:
    lines = ["# Results", ""]
    for section in sections(runs):
        lines += [f"## {section.title}", "", _row(["", *section.columns])]
        lines.append("|" + "---|" * (len(section.columns) + 1))
        for title, cells in section.rows:
            lines.append(_row([title, *("<br>".join(map(_linked, cell)) or "–" for cell in cells)]))
        lines.append("")
    if any(run.results.intervals for run in runs):
        lines += ["In brackets: 95 % intervals, over queries.", ""]
    if any(run.results.failed_files for run in runs):
        lines += ["\\* without videos that cannot be read", ""]
    lines += ["## Commands", ""]
    for run in runs:
        anchor = f'<a id="run-{run.number}"></a>'
        lines.append(
            f"{run.number}. {anchor}{_code(str(run.file))}, {run.about}: {_code(run.results.command)}"
        )
    if failed:
        lines += ["", "## Not in the tables", "", *(f"- {_code(str(f))} {why}" for f, why in failed.items())]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _linked(figures: Figures) -> str:
    text = figures.text.replace("*", "\\*")
    if figures.number is None:
        return text
    between = f"<br>({figures.intervals})" if figures.intervals else ""
    return f"[{text}](#run-{figures.number}){between}"


def _code(text: str) -> str:
    """A code span, whatever the text holds."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def as_csv(runs: Iterable[Run]) -> str:
    """A line for each run, direction and kind; empty where there is no such figure."""
    file = io.StringIO()
    names = ("task", "direction", "kind", "dataset", "data", "arch", "checkpoint", "sha256", "settings")
    published = [f"published_{m}" for m in TITLES]
    ends = [f"{m}_{end}" for m in TITLES for end in ("low", "high")]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*names, *TITLES, *ends, *published, "failed_files", "counts", "command", "file"])
    for run in runs:
        results = run.results
        for i, (direction, kinds) in enumerate(results.metrics.items()):
            for kind, values in kinds.items():
                paper = results.published.get(kind, {}) if i == 0 else {}
                between = results.intervals.get(direction, {}).get(kind, {})
                counts = json.dumps(results.counts)
                of_model = (results.arch, results.checkpoint["path"], results.checkpoint["sha256"])
                writer.writerow(
                    [
                        *(results.task, direction, kind, results.dataset, run.data),
                        *(*of_model, run.settings_of(kind)),
                        *(values.get(m, "") for m in TITLES),
                        *(end for m in TITLES for end in between.get(m, ("", ""))),
                        *(paper.get(m, "") for m in TITLES),
                        *(len(results.failed_files), counts, results.command, run.file),
                    ]
                )
    return file.getvalue()


def show(runs: Sequence[Run], failed: Mapping[Path, str], output: Path | None, places: str) -> None:
    """Write the table as `output` ends, or print it. Raises WriteError."""
    if output is None:
        print(as_markdown(runs, failed))
    elif output.suffix == ".md":
        write_text(as_markdown(runs, failed) + "\n", output)
    elif output.suffix == ".csv":
        write_text(as_csv(runs), output)
    else:
        facts = {"data": f"{counted(len(runs), 'runs')} in {places}"}
        values: dict[str, Any] = {"sections": sections(runs), "runs": runs, "failed": failed}
        write_page(output, "table", "Table of results", facts, **values)
    if output is not None:
        print(f"{counted(len(runs), 'runs')} in {output}")


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python -m downstream.table", __doc__)
    parser.add_argument("places", nargs="+", metavar="FOLDER", help="where results are, such as results/")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=f"one that ends in {', '.join(FORMATS)} (default: Markdown, on the terminal)",
    )
    args = parser.parse_args(argv)
    if args.output and Path(args.output).suffix not in FORMATS:
        parser.error(f"--output {args.output}: its name must end in {', '.join(FORMATS)}")
    with user_errors():
        runs, failed = read_runs(find_results(args.places))
    with run_errors():
        show(runs, failed, Path(args.output) if args.output else None, ", ".join(args.places))
    for file, why in failed.items():
        print(f"warning: not in the table: {file} {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
