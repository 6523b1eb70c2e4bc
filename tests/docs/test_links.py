"""Links between the pages of the documentation lead somewhere, and every page is reached from the README."""

import re
from pathlib import Path

from utils.config import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[tuple[Path, str]]:
    """(file, heading or "") of each link to a file of the repository."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = [target for target in LINK.findall(text) if not re.match(r"https?://", target)]
    pairs = [target.partition("#") for target in targets]
    return [((page.parent / file).resolve() if file else page, heading) for file, _, heading in pairs]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    dead = [
        f"{page.name}: {file.name}{heading and '#' + heading}"
        for page in PAGES
        for file, heading in links(page)
        if not file.exists() or (heading and heading not in anchors(file))
    ]
    assert not dead


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            waiting += [file for file, _ in links(page)]
    assert set(PAGES[2:]) <= reached
