"""Windows of videos by the times of their frames, and how they are read."""

import os
import signal

import av
import numpy as np
import pytest

from data_loader.failures import Failure
from data_loader.spans import Span
from data_loader.transforms import feature_transform
from data_loader.video import open_video, process
from downstream.embedding.clips import Clip, ClipDataset, read_together
from downstream.inputs.pieces import Cutting, find_clips
from tests.data_loader import video_files as files


def windows_of(path, seconds):
    """[(start, end)] of the windows of a video, and a data set of them."""
    cutting = Cutting.of(12, seconds, None, None, None)
    clips, failed = find_clips([Clip(str(path))], cutting)
    assert failed == []
    return [(clip.span.start, clip.span.end) for clip in clips], ClipDataset(
        clips, range(len(clips)), cutting, feature_transform(48), most=16
    )


def numbers(dataset):
    """The frames of each window, by the numbers in their pixels."""
    items = [item for i in range(len(dataset)) for item in dataset[i]]
    assert [item["index"] for item in items] == list(range(len(items)))
    return [files.frame_numbers(item["video"]) for item in items]


def test_a_recording_that_does_not_say_how_long_it_is(tmp_path):
    """As browsers write them while the end is not known yet."""
    path = files.write_video(tmp_path / "a.webm", 50, "libvpx", container_options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None and container.streams.video[0].duration is None
    times, dataset = windows_of(path, 0.8)
    assert times == [(0, 0.8), (0.8, 1.6), (1.6, pytest.approx(2.0, abs=0.01))]
    with open_video(path) as video:
        assert [clip.span.frames(video.times) for clip in dataset.clips] == [
            range(20),
            range(20, 40),
            range(40, 50),
        ]


def test_windows_count_seconds_and_not_frames(tmp_path):
    """6 s of two frames a second, then 2 s of 24: by their number, most frames are in the last quarter."""
    times = [500 * i for i in range(12)] + [6000 + i * 125 // 3 for i in range(48)]
    path = files.write_video(tmp_path / "vfr.mp4", 60, times=times)
    found, dataset = windows_of(path, 2.0)
    assert found == [(0, 2), (2, 4), (4, 6), (6, pytest.approx(8, abs=0.05))]
    slow = [np.linspace(4 * k, 4 * k + 3, 12).astype(int).tolist() for k in range(3)]
    assert numbers(dataset) == [*slow, (12 + np.linspace(0, 47, 12).astype(int)).tolist()]


def test_sound_after_the_picture_and_a_late_start_make_no_windows(tmp_path):
    path = files.write_late_video(tmp_path / "late.mkv", start_ms=30_000, num_frames=25, sound_s=60)
    found, dataset = windows_of(path, 10.0)
    assert found == [(0, pytest.approx(1.0, abs=0.002))]
    assert numbers(dataset) == [np.linspace(0, 24, 12).astype(int).tolist()]


def test_gaps_make_no_windows(tmp_path):
    month = 30 * 86400
    times = [40 * i for i in range(25)] + [1000 * month + 40 * i for i in range(15)]
    path = files.write_video(tmp_path / "gap.mkv", 40, times=times)
    found, dataset = windows_of(path, 1.0)
    assert found == [(0, 1), (month, pytest.approx(month + 0.6, abs=0.01))]
    before, after = map(set, numbers(dataset))
    assert before <= set(range(25)) and after <= set(range(25, 40))
    items = dataset[0]
    assert [item["metadata"]["num_frames"] for item in items] == [40, 40]
    assert items[0]["metadata"]["duration"] == pytest.approx(month + 0.6, abs=0.01)


def test_windows_of_a_file_are_read_together():
    def clips(name, count):
        return [Clip(name, 1, 2, 10.0, Span(k, k + 1)) for k in range(count)]

    assert list(map(len, read_together(clips("a.mp4", 10), most=4))) == [4, 4, 2]
    assert list(
        map(len, read_together([*clips("a.mp4", 3), *clips("b.mp4", 1), *clips("c.mp4", 1)], 16))
    ) == [
        3,
        1,
        1,
    ]


@pytest.mark.parametrize("timeout", [None, 120.0])
def test_what_is_damaged_costs_the_windows_there_alone(tmp_path, timeout):
    path = files.write_video(tmp_path / "a.mp4", options={"g": "1"})
    whole, failed = find_clips([Clip(str(path))], Cutting(12, window=0.2))
    assert failed == [] and len(whole) == 8
    right = ClipDataset(whole, range(len(whole)), Cutting(12), feature_transform(32), most=8)[0]
    files.spoil(path, range(20, 40))
    items = ClipDataset(
        whole, range(len(whole)), Cutting(12, timeout=timeout), feature_transform(32), most=8
    )[0]
    assert [item["index"] for item in items if "missing" not in item] == [0, 1, 2, 3]
    for item, other in zip(items[:4], right, strict=False):
        assert (item["video"] == other["video"]).all() and item["metadata"]["num_frames"] == 40
    assert {item["missing"].reason for item in items[4:]} == {
        "20 of its 40 packets cannot be decoded: damaged"
    }


def test_a_file_that_timed_out_is_not_tried_again_for_its_parts(tmp_path):
    path = files.write_video(tmp_path / "a.mp4")
    clips, _ = find_clips([Clip(str(path))], Cutting(12, window=0.2, timeout=60.0))
    process.end_children()
    with open_video(path, timeout=60.0) as video:
        hanging = video.child.process.pid
    os.kill(hanging, signal.SIGSTOP)  # the one that the next reading takes
    items = ClipDataset(clips, range(len(clips)), Cutting(12, timeout=0.3), feature_transform(32), most=8)[0]
    assert [item["missing"].reason for item in items] == ["not read within 0.3 s, given up (reader pyav)"] * 8
    again = ClipDataset(clips, range(len(clips)), Cutting(12, timeout=60.0), feature_transform(32), most=8)[0]
    assert not any("missing" in item for item in again)
    process.end_children()


def test_a_file_that_hangs_does_not_stop_the_search_for_windows(tmp_path):
    path = files.write_video(tmp_path / "a.mp4")
    process.end_children()
    with open_video(path, timeout=60.0) as video:
        os.kill(video.child.process.pid, signal.SIGSTOP)
        stopped = video.child
    clips, failed = find_clips([Clip(str(path))], Cutting(12, window=0.2, timeout=0.3))
    assert clips == [] and failed == [Failure(str(path), "not read within 0.3 s, given up (reader pyav)")]
    assert stopped.process.poll() is not None
    process.end_children()
