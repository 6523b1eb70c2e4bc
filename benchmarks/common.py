"""What the benchmarks of data print and write: tables, the machine with versions and commit, JSON."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import cpu_count

from downstream.report import draw_table
from utils.environment import environment

Row = Mapping[str, Any]  # "name" and figures


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, card, package versions, commit."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": cpu_count(),
        **environment(),
    }


def report(title: str, tables: Mapping[str, Sequence[Row]], path: str | None, **more: Any) -> None:
    """Print tables of figures, and write everything to `path` if it is given.

    tables: heading -> rows; the columns are the keys of the rows.
    more: whatever else belongs to the figures, for the file alone.
    """
    where = machine()
    print(f"{title}: {where['device']}, {where['cores']} cores of {where['cpu']}, commit {where['commit']}")
    for heading, rows in tables.items():
        columns = list(dict.fromkeys(key for row in rows for key in row if key != "name"))
        print(f"\n{heading}")
        print(draw_table(columns, [(row["name"], [_cell(row.get(c)) for c in columns]) for row in rows]))
    if path:
        result = {"title": title, "machine": where, **more, "tables": tables}
        Path(path).write_text(json.dumps(result, indent=1, default=str) + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value}"
