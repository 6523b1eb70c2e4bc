"""The map of features: what lies near, which pictures are shown, and the page in a real browser."""

import re

import numpy as np
import pytest

from downstream import feature_extraction
from downstream.feature_files import FeatureTable
from downstream.report.feature_map import (
    COLOURS,
    OTHERS,
    by_number,
    by_value,
    choose_rows,
    colourings,
    positions,
    spread,
    to_canvas,
)

from ..browser import document, files_beside, needs_chromium
from ..layouts import write_video


def clusters(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 16))
    labels = np.arange(number) % 3
    vectors = centres[labels] + 0.1 * rng.standard_normal((number, 16))
    return vectors * rng.uniform(0.5, 20, (number, 1)), labels  # lengths are not to matter


@pytest.mark.parametrize("number", [6, 60])
def test_like_lies_beside_like(number):
    features, labels = clusters(number)
    places = positions(features.astype(np.float32))
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).all()
    np.testing.assert_array_equal(places, positions(features.astype(np.float32)))


def test_one_vector_has_a_place():
    places = to_canvas(positions(np.ones((1, 8), np.float32)))
    assert places.shape == (1, 2) and np.isfinite(places).all()


def test_a_map_of_many_shows_some_of_them():
    assert choose_rows(3000) == list(range(3000))
    chosen = choose_rows(1_000_000)
    assert len(set(chosen)) == 3000 and max(chosen) > 900_000 and chosen == choose_rows(1_000_000)


def test_the_first_pictures_lie_far_apart():
    rng = np.random.default_rng(0)
    centres = np.repeat([[0, 0], [99, 0], [0, 99], [99, 99]], 50, axis=0)
    order = spread(centres + rng.normal(size=(200, 2)), 60)
    assert len(set(order)) == 60
    assert {row // 50 for row in order[:4]} == {0, 1, 2, 3}
    assert sorted(spread(np.zeros((3, 2)), 60)) == [0, 1, 2]


def test_small_groups_share_a_colour():
    colouring = by_value("name", [f"g{i}" for i in range(12) for _ in range(20 - i)])
    assert colouring.legend[0] == {"name": "g0", "count": 20, "colour": COLOURS[0]}
    assert colouring.legend[-1] == {"name": "others", "count": 10 + 9, "colour": OTHERS}
    assert colouring.entries == [min(i, 10) for i in range(12) for _ in range(20 - i)]


def test_numbers_have_a_scale():
    numbers = np.array([5.0, np.nan, *range(100, 111)])
    colouring = by_number("n", [f"{n:g}" for n in numbers], numbers)
    assert [entry["count"] for entry in colouring.legend] == [2, 2, 2, 2, 2, 2, 1]
    assert colouring.legend[0]["name"] == "5 to 100" and colouring.legend[-1]["name"] == "none"
    assert colouring.entries == [0, 6, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_columns_that_say_something_of_groups():
    columns = {
        "path": [f"/films/{i % 2}/{i}.mp4" for i in range(20)],
        "duration": np.arange(20.0),
        "modified_ns": np.arange(20),
        "label": [f"class {i % 3}" for i in range(20)],
        "caption": [f"caption {i}" for i in range(20)],
        "split": ["test"] * 20,
        "stars": np.arange(20) % 5,
        "tokens": np.zeros((20, 4, 8), np.float32),
    }
    table = FeatureTable(np.zeros((20, 8), np.float32), columns, {})
    assert [each.name for each in colourings(table)] == ["folder", "label", "stars", "duration"]
    one_folder = FeatureTable(table.features, columns | {"path": [f"/films/{i}.mp4" for i in range(20)]}, {})
    assert [each.name for each in colourings(one_folder)] == ["label", "stars", "folder", "duration"]
    namesakes = columns | {"path": [f"/{i % 2}/all/a.mp4" for i in range(20)]}
    folders = colourings(FeatureTable(table.features, namesakes, {}))[0].legend
    assert {entry["name"] for entry in folders} == {"0/all", "1/all"}


@needs_chromium
@pytest.mark.parametrize("window", [[], ["--window", "0.4"]])
def test_page(window, checkpoint, tmp_path, capsys):
    for i in range(4):
        write_video(tmp_path / "videos" / f"folder {i % 2}" / f"{i}.mp4", seed=i)
    given = ["--arch", "TVTSv2_Demo", "--checkpoint", str(checkpoint), "--num-workers", "0", "-d", "cpu"]
    given += ["-o", str(tmp_path / "out.npz"), "--report", str(tmp_path / "pages"), *window]
    assert feature_extraction.main([str(tmp_path / "videos"), *given]) == 0
    page = tmp_path / "pages/features.html"
    assert f"page: {page}" in capsys.readouterr().out
    seen = document(page, tmp_path / "profile")
    videos = set((tmp_path / "videos").rglob("*.mp4"))
    assert files_beside(page, seen) == {page.parent / "index.html", *videos}
    labels = re.findall(r'<circle class="point"[^>]* data-label="([^"]*)"', seen)
    pictures = [labels[int(row)] for row in re.findall(r'class="thumbnail" data-row="(\d+)"', seen)]
    assert pictures and seen.count('href="data:image/jpeg') == len(pictures)
    for name in pictures:
        assert f'aria-label="play {name}"' in seen
    if window:
        assert len(labels) == 20 and labels[1] == "0.mp4, 0.4 to 0.8 s"
        assert "</span> 0.mp4 (5)" in seen
    else:
        assert labels == ["0.mp4", "2.mp4", "1.mp4", "3.mp4"]
        assert "</span> folder 0 (2)" in seen and "</span> folder 1 (2)" in seen
