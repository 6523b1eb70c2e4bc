"""Frame choice: the official indices, and random draws that reach every frame."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_loader.sampling import (
    frame_at,
    frames_between,
    linspace_frames,
    sample_frames,
    span_frames,
    window_shifts,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "data.json").read_text())["frame_sampling"]


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['num_frames']}_of_{row['vlen']}")
def test_official_indices(row):
    assert sample_frames(row["num_frames"], row["vlen"]) == row["uniform"]
    assert linspace_frames(row["num_frames"], row["vlen"]) == row["linspace"]


@pytest.mark.parametrize("vlen", [1, 5, 11, 12, 13, 23, 24, 100])
def test_random_frames_lie_in_their_parts_and_reach_all_of_them(vlen):
    rng = np.random.default_rng(0)
    draws = np.array([sample_frames(12, vlen, "rand", rng) for _ in range(400)])
    parts = min(12, vlen)
    bounds = np.linspace(0, vlen, parts + 1).astype(int)
    assert draws.shape == (400, parts)
    for k in range(parts):
        assert set(draws[:, k]) == set(range(bounds[k], bounds[k + 1]))


def test_random_frames_repeat_with_the_seed():
    first, second = (sample_frames(12, 300, "rand", np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert all(type(i) is int for i in first)
    assert sample_frames(12, 300, "rand") != sample_frames(12, 300, "rand")


def test_sliding_windows_start_each_part_and_shift():
    assert window_shifts(12, 300, 10) == [0, 10, 20]  # below int(300 / 13) = 23
    assert sample_frames(12, 300, shift=10) == [25 * k + 10 for k in range(12)]
    assert sample_frames(12, 300, "rand", shift=0) == [25 * k for k in range(12)]
    assert window_shifts(12, 13, 1) == [0]
    assert window_shifts(12, 5, 1) == [0]


@pytest.mark.parametrize("vlen", range(1, 80))
def test_every_window_fits(vlen):
    for shift in window_shifts(12, vlen, 1):
        assert len(sample_frames(12, vlen, shift=shift)) == min(12, vlen)


@pytest.mark.parametrize("rate", [24, 25, 30, 30000 / 1001])
def test_at_a_constant_rate_a_span_is_the_official_one(rate):
    rng, times, duration = np.random.default_rng(1), np.arange(3000) / rate, 3000 / rate
    for _ in range(300):
        start = float(rng.choice([0.0, rng.random() * 90, rng.integers(90)]))
        end = start + int(rng.integers(1, 24))
        first, length = int(start * rate), int(rate * (end - start))
        length = min(length, 3000 - first)
        expected = [first + i for i in sample_frames(12, length, "uniform")]
        assert span_frames(times, duration, start, end, 12, "uniform") == expected


def test_a_span_is_that_of_the_times():
    rng, times = np.random.default_rng(0), np.arange(2500) / 25
    for _ in range(50):
        frames = span_frames(times, 100, 10.5, 25.5, 12, rng=rng)  # 262.5 to 637.5, in 12 parts
        bounds = 262 + np.linspace(0, 375, 13).astype(int)
        assert all(low <= i < high for i, low, high in zip(frames, bounds, bounds[1:], strict=False))
    assert span_frames(times, 100, 10.5, 25.5, 12, "uniform") == [262 + i for i in sample_frames(12, 375)]


@pytest.mark.parametrize("vlen", [1, 3, 11, 40])
def test_a_span_of_a_short_video_stays_inside(vlen):
    for start, end in ((0, 4), (1.9, 2.0), (3.99, 9.0), (7, 8)):
        frames = span_frames(np.linspace(0, 4, vlen), 4.5, start, end, 12)
        assert 1 <= len(frames) <= 12
        assert min(frames) >= 0 and max(frames) < vlen


def test_spans_with_a_variable_frame_rate():
    """30 s of two frames a second, then 30 s of 30."""
    times = np.concatenate([np.arange(60) / 2, 30 + np.arange(900) / 30])
    assert frames_between(times, 0, 10) == range(20)
    assert frames_between(times, 20, 30) == range(40, 60)
    assert frames_between(times, 30, 40) == range(60, 360)
    assert span_frames(times, 60, 0, 6, 12, "uniform") == list(range(12))


def test_times_that_are_rounded_do_not_move_a_frame():
    times = np.arange(100) / 25
    for k in range(5):
        start = k * 0.8  # 3 · 0.8 is above 2.4
        assert frames_between(times, start, (k + 1) * 0.8) == range(20 * k, 20 * k + 20)
        assert frame_at(times, start) == 20 * k


def test_where_no_frame_appears_the_one_that_is_shown_is_taken():
    times = np.array([0.0, 5.0, 100.0])
    assert frames_between(times, 6, 7) == range(1, 2)
    assert frames_between(times, 200, 300) == range(2, 3)
    assert [frame_at(times, t) for t in (0, 4.9, 5, 99, 1000, -1)] == [0, 0, 1, 1, 2, 0]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sample_frames(12, 0), "video of 0 frames"),
        (lambda: linspace_frames(12, 0), "video of 0 frames"),
        (lambda: sample_frames(0, 9), "num_frames is 0"),
        (lambda: sample_frames(12, 9, "random"), "'random'; expected one of uniform, rand"),
        (lambda: sample_frames(12, 24, shift=2), "shift 2 leaves its part"),
        (lambda: window_shifts(12, 24, 0), "stride is 0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
