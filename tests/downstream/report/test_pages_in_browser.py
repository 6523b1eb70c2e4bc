"""What pages do when somebody clicks, types, zooms and drags: a real browser, on files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downstream.feature_files import FeatureTable
from downstream.report.evaluation_pages import confusion
from downstream.report.feature_map import write_map
from downstream.report.pages import write_page
from downstream.search import write_search_page
from downstream.vector_search.videos import Hit

from ..browser import Browser, needs_chromium
from ..layouts import h264

pytestmark = needs_chromium
VIEW = "document.getElementById('map').getAttribute('viewBox').split(' ').map(Number)"
PICTURES = "[...document.querySelectorAll('.thumbnail:not([hidden])')]"
NOTHING_HIDDEN = f"""(() => {{
  const boxes = {PICTURES}.map((picture) => picture.getBoundingClientRect());
  const apart = (a, b) => a.right <= b.left + 1 || a.bottom <= b.top + 1;
  const clear = (a, b) => a === b || apart(a, b) || apart(b, a);
  return boxes.length > 3 && boxes.every((a) => boxes.every((b) => clear(a, b)));
}})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as one:
        yield one
        assert one.failures == []


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Two namesakes of six seconds."""
    folder = tmp_path_factory.mktemp("films")
    for i, name in enumerate(("day", "night & #1")):
        (folder / name).mkdir()
        h264(folder / name / "a film.mp4", i)
    return folder


def see(browser: Browser, page: Path, **size: Any) -> None:
    metrics = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.send("Emulation.setDeviceMetricsOverride", **(metrics | size))
    browser.open(page.as_uri())
    browser.wait(f"location.pathname.endsWith({page.name!r}) && document.readyState === 'complete'")


def press(browser: Browser, key: str, **more: Any) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key=key, **more)


def mouse(browser: Browser, kind: str, x: float, y: float, **more: Any) -> None:
    browser.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)


def middle(browser: Browser, element: str) -> list[float]:
    box = f"(({element}).getBoundingClientRect())"
    return browser.value(f"(b => [b.x + b.width / 2, b.y + b.height / 2]){box}")


def found_page(folder: Path, films: Path) -> Path:
    page = folder / "pages" / "found.html"
    hits = [Hit(str(film), 0.5, 2.0, 4.0, 6.0) for film in sorted(films.rglob("*.mp4"))]
    write_search_page(page, [("a film", hits)], {"model": "B_16"})
    return page


def test_a_click_plays_the_window_of_a_video(browser, films, tmp_path):
    see(browser, found_page(tmp_path, films))
    assert not browser.value("document.querySelector('dialog').open || video.hasAttribute('src')")
    cards = browser.value("[...document.querySelectorAll('.card')].map((card) => card.innerText)")
    assert "day/a film.mp4" in cards[0] and "night & #1/a film.mp4" in cards[1]
    browser.click(".item .card:nth-child(2) a.picture")
    browser.wait("video.currentTime > 2 && video.videoWidth === 64")
    browser.wait("video.paused")  # at the end of the window
    assert 3.5 < browser.value("video.currentTime") < 4.5
    press(browser, "Escape", windowsVirtualKeyCode=27)
    browser.wait("!document.querySelector('dialog').open && !video.hasAttribute('src')")


def test_the_keyboard_plays_too(browser, films, tmp_path):
    see(browser, found_page(tmp_path, films))
    browser.value("document.querySelector('a.picture').focus()")
    browser.type("\r")
    browser.wait("document.querySelector('dialog').open && video.currentTime > 2")


def test_it_is_said_that_a_file_is_gone(browser, tmp_path):
    film = h264(tmp_path / "gone.mp4", 3)
    write_search_page(tmp_path / "found.html", [("a film", [Hit(str(film), 0.5)])], {})
    film.unlink()
    see(browser, tmp_path / "found.html")
    browser.click("a.picture")
    said = "document.querySelector('dialog').innerText"
    browser.wait(f"{said}.includes('is not there any more')")
    assert str(film) in browser.value(said) and browser.value("video.hidden")


@pytest.fixture(scope="module")
def map_page(films, tmp_path_factory) -> Path:
    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    paths = [str(film) for film in sorted(films.rglob("*.mp4"))]
    columns = {"path": [paths[i % 2] for i in range(60)], "stars": np.arange(60) % 5}
    return write_map(tmp_path_factory.mktemp("map"), FeatureTable(features, columns, {"arch": "B_16"}))


def test_the_map_zooms_and_moves(browser, map_page):
    see(browser, map_page)
    assert browser.value(VIEW) == [0, 0, 1200, 850] and browser.value(NOTHING_HIDDEN)
    few = browser.value(f"{PICTURES}.length")
    under = "(p => [p.x, p.y])(new DOMPoint(600, 600).matrixTransform(map.getScreenCTM().inverse()))"
    before = browser.value(under)
    mouse(browser, "mouseWheel", 600, 600, deltaX=0, deltaY=-300)
    browser.wait(f"{VIEW}[2] < 1000")
    np.testing.assert_allclose(browser.value(under), before, atol=0.1)
    assert browser.value(NOTHING_HIDDEN) and browser.value(f"{PICTURES}.length") != few
    width = browser.value("points[0].getBoundingClientRect().width")
    assert width == pytest.approx(8, abs=1.5)  # on the screen, as before

    x = browser.value(VIEW)[0]
    for kind, place in (("Pressed", 600), ("Moved", 560), ("Moved", 500), ("Released", 500)):
        mouse(browser, f"mouse{kind}", place, 600, button="left", buttons=1, clickCount=1)
    browser.wait(f"{VIEW}[0] > {x + 20}")
    assert not browser.value("document.querySelector('dialog').open")  # a drag plays nothing

    browser.value("map.focus()")
    width = browser.value(VIEW)[2]
    press(browser, "-")
    browser.wait(f"{VIEW}[2] > {width}")
    press(browser, "+")
    browser.wait(f"Math.abs({VIEW}[2] - {width}) < 1e-6")
    browser.value("map.dispatchEvent(new MouseEvent('dblclick'))")
    assert browser.value(VIEW) == [0, 0, 1200, 850]


def test_two_fingers_zoom(browser, map_page):
    see(browser, map_page, width=400, mobile=True)
    assert browser.value(NOTHING_HIDDEN)
    browser.value("map.scrollIntoView()")
    y = browser.value("map.getBoundingClientRect().y") + 100
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 80)):
        fingers = [{"x": 200 + side * apart, "y": y, "id": n} for n, side in enumerate((-1, 1))]
        browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)
    browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.wait(f"{VIEW}[2] < 500")


def test_the_map_tells_and_colours(browser, map_page):
    see(browser, map_page, height=1300)
    fills = "[...new Set(points.map((point) => point.getAttribute('fill')))]"
    assert len(browser.value(fills)) == 2
    browser.choose("#colour", 1)
    assert len(browser.value(fills)) == 5
    assert "3 (12)" in browser.value("document.getElementById('legend').innerText")
    x, y = middle(browser, "points[7]")
    mouse(browser, "mouseMoved", x, y)
    browser.wait("!label.hidden")
    assert "/a film.mp4\nstars: " in browser.value("label.textContent")
    browser.click("#words")
    browser.type("NIGHT film")
    faint = "points.filter((point) => point.classList.contains('other')).map((point) => point.dataset.label)"
    assert browser.value(faint) == ["day/a film.mp4"] * 30
    x, y = middle(browser, "points[7]")  # the page may have scrolled
    for kind in ("mousePressed", "mouseReleased"):
        mouse(browser, kind, x, y, button="left", clickCount=1)
    browser.wait("document.querySelector('dialog').open && video.currentTime > 0")


def test_tables_sort_and_lists_are_searched(browser, tmp_path):
    classes = [f"class x{i}x" for i in range(12)]
    queries = [
        {"video": f"{i}-{n}", "class": name, "predicted": classes[i - (n < i % 4)], "rank": 1 + (n < i % 4)}
        for i, name in enumerate(classes)
        for n in range(4 + i)
    ]
    page = tmp_path / "page.html"
    write_page(page, "confusion", "Classes", {}, table="", footer=[], **confusion(queries, classes))
    see(browser, page)
    rows = "[...document.querySelectorAll('.sorted tr:not([hidden]) td:first-child')]"
    names = f"{rows}.map((cell) => cell.innerText)"
    for ascending in (True, False):
        browser.click(".sorted th:nth-child(2) button")
        assert browser.value(names) == (classes if ascending else classes[::-1])
    assert browser.value("document.querySelector('[aria-sort]').ariaSort") == "descending"
    browser.click("[data-filter='tr:has(td)']")
    browser.type("X11X class")
    assert sorted(browser.value(names)) == ["class x11x"]
    browser.click("[data-filter='.item']")
    browser.type("class x7x")
    heads = "[...document.querySelectorAll('.item:not([hidden]) h3')].map((head) => head.innerText)"
    assert browser.value(heads) == ["class x7x taken for class x6x: 3 of 11"]


def test_a_cell_of_the_matrix_leads_to_its_videos(browser, tmp_path):
    classes = [f"a class with a rather long name, number {i}" for i in range(400)]
    queries = [
        {"video": str(i), "class": name, "predicted": classes[i // 2], "rank": 2}
        for i, name in enumerate(classes)
    ]
    page = tmp_path / "page.html"
    write_page(page, "confusion", "Classes", {}, table="", footer=[], **confusion(queries, classes))
    see(browser, page)
    width, height = browser.value(
        "(box => [box.width, box.height])(document.querySelector('svg').getBoundingClientRect())"
    )
    assert 700 < width < 1150 and 700 < height < 1150
    browser.value("document.querySelector('svg a').focus()")
    browser.type("\r")
    browser.wait("location.hash === '#case-0'")
    title = browser.value("document.querySelector('svg a title').textContent")
    case = browser.value("document.getElementById('case-0').innerText")
    assert title.replace(" → ", " taken for ") in case
    assert browser.value("document.documentElement.scrollWidth") <= 1200
