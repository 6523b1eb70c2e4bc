"""Pages to look at: one HTML file each, pictures and scripts inside, nothing taken from a network; and the
index of those in a folder."""

import base64
import hashlib
import html
import json
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from downstream.report.pictures import Thumbnails, relative_link
from utils.files import write_text

FOLDER = Path(__file__).parent / "templates"
TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
INDEX = "index.html"
FACTS = re.compile(r'<meta name="tvtsv2-page" content="([^"]*)">')  # in page.html, before all else
HEAD = 2**15  # bytes of a page that hold its facts


def write_page(
    path: Path,
    template: str,
    title: str,
    facts: Mapping[str, str],
    *,
    shown: Thumbnails | None = None,
    index: Path | None = None,
    **values: Any,
) -> None:
    """Fill a template of templates/ and put it at `path` in one step; all values are escaped.

    facts: what the page is of, for its head; the index shows "result", "model" and "data".
    shown: the pictures that the template names. index: a folder, at or above that of the page, whose
    index.html lists it; None: the page's folder if it has an index already.

    Raises WriteError.
    """
    if index is None and facts_of(path.parent / INDEX).get("page") == "index":
        index = path.parent
    shown = shown or Thumbnails()
    facts = {**facts, "written": f"{datetime.now():%Y-%m-%d %H:%M}"}
    # the policy in page.html lets the browser run these scripts, and none that a name or caption brings
    scripts = [file.read_text() for file in (FOLDER / "page.js", FOLDER / f"{template}.js") if file.is_file()]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    listed = index is not None and path != index / INDEX
    values |= {
        "title": title,
        "facts": facts,
        "meta": json.dumps({"page": template, "title": title, **facts}),
        "shown": shown,
        "links": shown.links(path.parent),
        "scripts": scripts,
        "hashes": hashes,
        "index": relative_link(index / INDEX, path.parent) if index and listed else "",
    }
    write_text(TEMPLATES.get_template(f"{template}.html").render(**values), path)
    if index and listed:
        write_index(index)


def write_index(folder: Path) -> None:
    """Write folder/index.html, a table of the pages in a folder and in those of models below it.

    Evaluations that run side by side write it, too: it is written until it says what is there. An index.html
    that is no such table is left as it is, with a warning. Raises WriteError.
    """
    path = folder / INDEX
    if path.exists() and facts_of(path).get("page") != "index":
        print(f"warning: {path} is no index of pages: it is left as it is", file=sys.stderr)
        return
    listed = None
    while listed != (pages := find_pages(folder)):
        newest_first = sorted(pages.items(), key=lambda page: page[1].get("written", ""), reverse=True)
        rows = [facts | {"link": relative_link(page, folder)} for page, facts in newest_first]
        number = "1 page" if len(rows) == 1 else f"{len(rows)} pages"
        write_page(path, "index", "Results", {"pages": number}, index=folder, rows=rows)
        listed = pages


def find_pages(folder: Path) -> dict[Path, dict[str, str]]:
    """The pages of ours in a folder and one below it, with their facts."""
    files = sorted([*folder.glob("*.html"), *folder.glob("*/*.html")])
    found = {file: facts_of(file) for file in files if file.name != INDEX}
    return {file: facts for file, facts in found.items() if facts}


def facts_of(page: Path) -> dict[str, str]:
    """What a page says of itself, "title" among it; {} of a file that is no page of ours."""
    try:
        with page.open("rb") as file:
            found = FACTS.search(file.read(HEAD).decode(errors="replace"))
        facts = json.loads(html.unescape(found[1])) if found else {}
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(facts, dict) and all(isinstance(value, str) for value in facts.values())
    return facts if is_ours and {"page", "title"} <= facts.keys() else {}
