"""The exact reader and the packets it goes by."""

import tracemalloc

import numpy as np
import pytest

from data_loader.readers import pyav_reader
from data_loader.readers.container import open_video
from data_loader.readers.packets import Packets, scan_packets, video_packets
from data_loader.video import read_frames
from tests.data_loader import video_files as files
from tests.data_loader.video_kinds import GOOD, HEVC_OPEN


def test_pictures_that_cannot_be_decoded_do_not_count(tmp_path):
    source = files.write_video(tmp_path / "whole.mkv", codec="libx265", options=HEVC_OPEN)
    path = files.cut_by_copy(source, tmp_path / "cut.mkv", 10, keep_start=False)
    packets = scan_packets(str(path))
    frames, _, vlen = read_frames(path, range, "pyav")
    assert files.frame_numbers(frames) == list(range(16, 40))  # the first key frame is 16
    assert vlen == 24 < packets.count


def decode_groups(path, wanted, packets):
    with open_video(path) as (container, stream):
        coming = video_packets(container, stream)
        return pyav_reader.decode_groups(stream.codec_context, coming, wanted, packets)


@pytest.mark.parametrize("name", GOOD)
def test_decoding_groups_gives_what_decoding_all_gives(make, name):
    path = str(make(name))
    packets, rng = scan_packets(path), np.random.default_rng(0)
    for size in (1, 3, packets.count):
        wanted = set(rng.choice(packets.count, min(size, packets.count), replace=False).tolist())
        some = decode_groups(path, wanted, packets)
        if name.endswith((".avi", ".mpg", ".ts")):
            assert some is None
        elif some is not None:
            every, count = pyav_reader.decode_all(path, wanted, [], packets.count)
            assert count == packets.count
            assert some.keys() == wanted and all(np.array_equal(some[i], every[i]) for i in wanted)


def test_only_the_groups_needed_are_decoded(make, monkeypatch):
    decoded, plain = [], pyav_reader.frames_of_ranges
    monkeypatch.setattr(
        pyav_reader, "frames_of_ranges", lambda *args: [f for f in plain(*args) if not decoded.append(f.pts)]
    )
    for name in ("h264_b_frames.mp4", "open_gop.mp4"):  # of 40 frames, key frames at most 12 apart
        decoded.clear()
        frames, _, _ = read_frames(make(name), lambda n: [38], "pyav")
        assert files.frame_numbers(frames) == [38]
        assert 1 <= len(decoded) <= 16


def test_pictures_that_nothing_builds_on_are_left_out(make, monkeypatch):
    decoded, plain = [], pyav_reader.frames_of_ranges
    monkeypatch.setattr(
        pyav_reader, "frames_of_ranges", lambda *args: [f for f in plain(*args) if not decoded.append(f.pts)]
    )
    frames, _, _ = read_frames(make("h264_b_frames.mp4"), lambda n: [11, 35], "pyav")
    assert files.frame_numbers(frames) == [11, 35]
    assert len(decoded) < len(set(range(12)) | set(range(24, 36)))


def test_large_files_are_read_in_two_passes(make, monkeypatch):
    wanted = [30, 2]
    once = pyav_reader.read(str(make("h264_b_frames.mp4")), lambda n: wanted)
    monkeypatch.setattr(pyav_reader, "KEPT_BYTES", 0)
    twice = pyav_reader.read(str(make("h264_b_frames.mp4")), lambda n: wanted)
    assert np.array_equal(once.frames, twice.frames) and once.indices == twice.indices == wanted


def test_key_frames_built_up_over_several_pictures_are_no_start(tmp_path):
    options = {"x264-params": "intra-refresh=1:keyint=8:bframes=0:scenecut=0"}
    path = str(files.write_video(tmp_path / "refresh.mkv", options=options))
    packets = scan_packets(path)
    assert packets.start_clean() and sum(packets.keys) > 1
    assert decode_groups(path, {30}, packets) is None
    frames, indices, _ = read_frames(path, lambda n: [30], "pyav")
    assert files.frame_numbers(frames) == indices


def test_ranges_of_packets():
    # decoded: I0 P3 B1 B2, then an open group: I6 B4 B5 P9 B7 B8, then a closed one: I10 P11
    times = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 10, 11]
    keys = [t in (0, 6, 10) for t in times]
    packets = Packets("mov,mp4", times, keys, [False] * 12)
    assert packets.shown() == list(range(12))
    assert packets.start_clean() and packets.are_timed() and not packets.are_closed()
    assert packets.ranges([1]) == [(0, 2)]
    assert packets.ranges([4]) == [(0, 5)]  # shown before the key frame it follows
    assert packets.ranges([7]) == [(4, 8)]
    assert packets.ranges([1, 11, 10]) == [(0, 2), (10, 11)]
    assert packets.ranges([4, 9]) == [(0, 7)]
    cut = Packets("mov,mp4", times, keys, [t < 5 for t in times])
    assert cut.count == 7 and cut.shown() == list(range(5, 12))
    assert not Packets("mov,mp4", [0, 0], [True, True], [False] * 2).are_timed()
    assert not Packets("mov,mp4", [0, None], [True, True], [False] * 2).are_timed()
    assert not Packets("avi", [0, 1], [True, True], [False] * 2).are_timed()
    assert not Packets("mov,mp4", [1, 0], [True, False], [False] * 2).start_clean()
    assert not Packets("mov,mp4", [0, 1], [False, True], [False] * 2).start_clean()


def test_a_wrong_count_is_chosen_from_again(make):
    path = str(make("h264.mp4"))
    packets = Packets("avi", list(range(50)), [True] * 50, [False] * 50)
    asked = []

    def choose(vlen):
        asked.append(vlen)
        return [vlen - 1]

    clip = pyav_reader.read(path, choose, packets)
    assert asked == [50, 40]
    assert clip.indices == [39] and clip.vlen == 40
    assert files.frame_numbers(clip.frames.transpose(0, 3, 1, 2)) == [39]


def test_pyav_keeps_only_the_frames_wanted(make):
    path = str(make("h264.mp4"))
    frame_bytes = 96 * 64 * 3
    tracemalloc.start()
    try:
        read_frames(path, lambda n: [n - 1], "pyav")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * frame_bytes
