"""The map of features: what lies near, which pictures are shown, and the page in a real browser."""

import numpy as np
import pytest

from downstream import feature_extraction
from downstream.report.feature_map import (
    CELL,
    choose_rows,
    colour_groups,
    positions,
    rows_with_pictures,
    to_canvas,
)

from ..browser import document, elements, needs_chromium, outside
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


def test_a_cell_shows_the_picture_nearest_to_its_centre():
    centre = np.array(CELL) * 2.5
    places = np.array([centre + 30, centre + 2, centre + 20, centre * 2])
    assert rows_with_pictures(places) == [1, 3]


def test_small_groups_share_a_colour():
    groups = [f"g{i}" for i in range(12) for _ in range(20 - i)]
    colours, legend = colour_groups(groups)
    assert colours["g10"] == colours["g11"] != colours["g0"] and len(set(colours.values())) == 11
    assert legend[0] | {"colour": None} == {"name": "g0", "count": 20, "colour": None}
    assert legend[-1]["name"] == "others" and legend[-1]["count"] == 10 + 9


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
    assert outside(seen) == []
    labels = elements(seen, "point")
    pictures = elements(seen, "thumbnail")
    assert pictures and set(pictures) <= set(labels) and seen.count('href="data:image/jpeg') == len(pictures)
    if window:
        assert len(labels) == 20 and labels[1].endswith("0.mp4, 0.4 to 0.8 s")
        assert "0.mp4</span> (5)" in seen or "0.mp4 (5)" in seen
    else:
        assert [label.rpartition("/")[2] for label in labels] == ["0.mp4", "2.mp4", "1.mp4", "3.mp4"]
        assert "folder 0 (2)" in seen and "folder 1 (2)" in seen
