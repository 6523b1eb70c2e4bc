"""Pictures of pages: which frames they show, where their videos are; and the index of pages."""

import base64
import hashlib
import html
import io
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_loader.spans import Span
from data_loader.video import read_frames
from downstream.report.pages import facts_of, write_page
from downstream.report.pictures import GAP, Picture, thumbnails
from downstream.search import Hit

from ..layouts import write_video


def shown(picture: Picture) -> np.ndarray:
    """The picture [H, W, 3] as a page has it."""
    data = thumbnails({"it": picture}).uris["it"].removeprefix("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


@pytest.mark.parametrize(
    ("start", "end", "frames"), [(None, None, (10, 30, 50)), (3.0, 6.0, (35, 45, 55)), (0.0, 0.1, (0, 0, 0))]
)
def test_a_strip_is_three_frames_in_their_order(start, end, frames, tmp_path):
    """Of a video, or of a window of it."""
    path = write_video(tmp_path / "a.mp4", seed=3, frames=60)
    strip = shown(Hit(str(path), 0.5, start, end, 6.0).picture)
    expected, _, _ = read_frames(path, lambda video: list(frames), reader="pyav")
    assert strip.shape == (48, 3 * 64 + 2 * GAP, 3)
    for i, frame in enumerate(expected.permute(0, 2, 3, 1).numpy().astype(int)):
        part = strip[:, i * (64 + GAP) :][:, :64]
        distances = [
            np.abs(part - other).mean() for other in expected.permute(0, 2, 3, 1).numpy().astype(int)
        ]
        assert np.abs(part - frame).mean() == min(distances) < 12


def test_links_lead_from_the_page_to_the_file(tmp_path):
    file = tmp_path / "a b#1: é?.mp4"
    file.touch()
    span = Span(2, 3.5)
    assert Picture(str(file)).link(tmp_path / "pages") == "../a%20b%231%3A%20%C3%A9%3F.mp4"
    assert Picture(str(file), span=span).link(tmp_path).endswith(".mp4#t=2,3.5")
    assert Picture(str(file), span=Span(2)).link(tmp_path).endswith(".mp4#t=2")
    assert Picture("https://host/a b.mp4", span=span).link(tmp_path) == "https://host/a b.mp4#t=2,3.5"
    for nothing in (f"{file}x", str(tmp_path), "s3://bucket/a.mp4", "javascript://%0aalert(1)"):
        assert Picture(nothing).link(tmp_path) == ""


def test_large_frames_are_made_small(tmp_path):
    path = write_video(tmp_path / "tall.mp4", seed=0, frames=3, size=(480, 240))
    assert shown(Picture(str(path))).shape == (72, 3 * 36 + 2 * GAP, 3)
    assert shown(Picture(str(path), (0.5,))).shape == (72, 36, 3)


def listed(index: Path) -> dict[str, str]:
    """Page -> the text of its row."""
    rows = re.findall(r'<tr><td><a href="([^"]*)">(.*?)</tr>', index.read_text())
    return {link: re.sub("<[^>]*>", " ", row) for link, row in rows}


def test_the_index_lists_all_pages(tmp_path):
    facts = {"result": 'R@1 68.0 <"&>', "model": "B_16", "data": "100 videos"}
    write_page(tmp_path / "one.html", "search", "One", facts, index=tmp_path, found=[], names={})
    write_page(tmp_path / "B 16" / "two.html", "search", "Two", {}, index=tmp_path, found=[], names={})
    (tmp_path / "foreign.html").write_text("<title>Three</title>")
    write_page(tmp_path / "four.html", "search", "Four", {}, found=[], names={})  # there is an index already
    rows = listed(tmp_path / "index.html")
    assert set(rows) == {"one.html", "B%2016/two.html", "four.html"}
    assert all(
        word in rows["one.html"] for word in ("One", "R@1 68.0 &lt;&#34;&amp;&gt;", "B_16", "100 videos")
    )
    assert facts_of(tmp_path / "one.html")["result"] == facts["result"]
    assert 'href="../index.html"' in (tmp_path / "B 16" / "two.html").read_text()
    (tmp_path / "one.html").unlink()
    write_page(tmp_path / "four.html", "search", "Four", {}, found=[], names={})
    assert set(listed(tmp_path / "index.html")) == {"B%2016/two.html", "four.html"}


def test_an_index_of_another_kind_is_left_as_it_is(tmp_path, capsys):
    index = tmp_path / "index.html"
    index.write_text("my own page")
    write_page(tmp_path / "one.html", "search", "One", {}, index=tmp_path, found=[], names={})
    assert index.read_text() == "my own page" and "is left as it is" in capsys.readouterr().err
    index.unlink()
    write_page(
        index, "table", "Table", {}, sections=[], runs=[], failed={}
    )  # python -m downstream.table -o …
    write_page(tmp_path / "one.html", "search", "One", {}, index=tmp_path, found=[], names={})
    assert facts_of(index)["page"] == "table" and "is left as it is" in capsys.readouterr().err


def test_a_search_makes_no_index(tmp_path):
    write_page(tmp_path / "found.html", "search", "One", {}, found=[], names={})
    assert [file.name for file in tmp_path.iterdir()] == ["found.html"]


@pytest.mark.parametrize("said", ["", "[1]", '{"title": 1}', '{"title": "x"}', "{", "[" * 20_000])
def test_what_is_no_page_of_ours_says_nothing(said, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f'<meta name="tvtsv2-page" content="{html.escape(said)}">')
    assert facts_of(page) == {}
    assert facts_of(tmp_path / "none.html") == {}


def write_ten(folder: Path, name: str) -> None:
    for i in range(10):
        write_page(folder / f"{name}{i}.html", "search", name, {}, index=folder, found=[], names={})


def test_processes_side_by_side_leave_a_whole_index(tmp_path):
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        for done in [pool.submit(write_ten, tmp_path, name) for name in "abcd"]:
            done.result()
    assert len(listed(tmp_path / "index.html")) == 40


def test_a_page_runs_its_own_scripts_alone(tmp_path):
    page = tmp_path / "page.html"
    write_page(page, "search", "<script>alert(1)</script>", {}, found=[], names={})
    text = page.read_text()
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and "default-src 'none'" in text
