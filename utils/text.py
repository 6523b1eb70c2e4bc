"""Words for messages, and texts for lists."""

import json
from collections import Counter
from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """A number and its noun, which is given in the plural: "1 video", "2 videos", "1 class"."""
    if number != 1:
        return f"{number} {noun}"
    return f"1 {noun.removesuffix('es') if noun.endswith('sses') else noun.removesuffix('s')}"


def one_line(text: str) -> str:
    """A path or reason for a list of a line each, tabs between its columns: as it is if it can be.

    Where it holds what would break the line, or bytes that are not UTF-8, its JSON string.
    """
    breaks_line = "\t" in text or len(f"{text}.".splitlines()) > 1
    return json.dumps(text) if breaks_line or any("\ud800" <= c <= "\udfff" for c in text) else text


def told_apart(paths: Iterable[str]) -> dict[str, str]:
    """Paths -> their files' names, before those that several have as many folders as tell them apart."""
    parts = {path: path.split("/") for path in paths}
    names: dict[str, str] = {}
    depth = 0
    while len(names) < len(parts):
        depth += 1
        ends = {path: "/".join(part[-depth:]) for path, part in parts.items()}
        times = Counter(ends.values())
        names |= {path: end for path, end in ends.items() if times[end] == 1 and path not in names}
    return names
