"""PyAV: only what is needed is read and decoded, nothing is taken on trust, and damage costs what it must."""

import logging
import os
import tracemalloc

import av
import numpy as np
import pytest

from data_loader.video import VideoReadError, open_video, pyav_reader, read_clip, read_frames
from data_loader.video.base import FrameCountChanged
from data_loader.video.packets import open_container, scan_packets
from data_loader.video.pixels import Clip
from data_loader.video.pyav_reader import PyAVVideo, key_frame_times
from tests.data_loader import video_files as files
from tests.data_loader.video_kinds import GOOD, HEVC_OPEN


def every(video):
    """All frames of an open video."""
    return range(len(video))


def test_pictures_that_cannot_be_decoded_do_not_count(tmp_path):
    source = files.write_video(tmp_path / "whole.mkv", codec="libx265", options=HEVC_OPEN)
    path = files.cut_by_copy(source, tmp_path / "cut.mkv", 10, keep_start=False)
    frames, _, vlen = read_frames(path, every)
    assert files.frame_numbers(frames) == list(range(16, 40))  # the first key frame is 16
    assert vlen == 24 < scan_packets(str(path)).count


@pytest.mark.parametrize("name", GOOD)
def test_some_frames_are_the_same_as_of_all(make, name):
    everything = read_frames(make(name), every)[0]
    rng = np.random.default_rng(0)
    for size in (1, 3):
        wanted = rng.choice(len(everything), min(size, len(everything)), replace=False).tolist()
        assert (read_frames(make(name), lambda _, wanted=wanted: wanted)[0] == everything[wanted]).all()
    # again, from a video that stays open
    with open_video(make(name)) as video:
        for _ in range(3):
            try:
                assert (video.read([0]).transpose(0, 3, 1, 2) == everything[:1].numpy()).all()
            except FrameCountChanged:
                continue
        assert len(video) == len(everything)


@pytest.fixture
def decoded(monkeypatch):
    """The times of the frames that were decoded in groups."""
    times, plain = [], PyAVVideo._frames_of_ranges
    monkeypatch.setattr(
        PyAVVideo, "_frames_of_ranges", lambda *args: (f for f in plain(*args) if not times.append(f.pts))
    )
    return times


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "open_gop.mp4"])  # key frames at most 12 apart
def test_only_the_groups_needed_are_decoded(make, decoded, name):
    frames, _, _ = read_frames(make(name), lambda _: [38])
    assert files.frame_numbers(frames) == [38]
    assert 1 <= len(decoded) <= 16


def test_pictures_that_nothing_builds_on_are_left_out(make, decoded):
    frames, _, _ = read_frames(make("h264_b_frames.mp4"), lambda _: [11, 35])
    assert files.frame_numbers(frames) == [11, 35]
    assert len(decoded) < len(set(range(12)) | set(range(24, 36)))


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "open_gop.mp4", "uneven_times.mkv", "cut.mp4"])
def test_of_large_files_the_packets_are_not_kept(make, monkeypatch, name):
    with open_video(make(name)) as video:
        kept = [video.read(wanted) for wanted in ([30, 2], [39], [5])]
    monkeypatch.setattr(pyav_reader, "KEPT_BYTES", 0)
    with open_video(make(name)) as video:
        assert video.kept is None
        for frames, wanted in zip(kept, ([30, 2], [39], [5]), strict=True):
            assert np.array_equal(video.read(wanted), frames)


def test_key_frames_built_up_over_several_pictures_are_no_start(tmp_path):
    options = {"x264-params": "intra-refresh=1:keyint=8:bframes=0:scenecut=0"}
    path = str(files.write_video(tmp_path / "refresh.mkv", options=options))
    packets = scan_packets(path)
    assert packets.start_clean() and sum(packets.keys) > 1
    frames, indices, _ = read_frames(path, lambda _: [30])
    assert files.frame_numbers(frames) == indices


def test_a_wrong_count_is_chosen_from_again(tmp_path):
    """A stream that is cut within its frames: the packets without their key frame give no pictures."""
    source = files.write_video(tmp_path / "whole.mkv", codec="libx265", options=HEVC_OPEN)
    path, asked = files.cut_by_copy(source, tmp_path / "cut.mkv", 10, keep_start=False), []
    frames, indices, vlen = read_frames(path, lambda video: asked.append(len(video)) or [len(video) - 1])
    assert len(asked) == 2 and asked[0] > asked[1] == vlen == 24
    assert indices == [23] and files.frame_numbers(frames) == [39]


def test_only_the_frames_wanted_are_in_memory(make):
    path, frame_bytes = str(make("h264.mp4")), 96 * 64 * 3
    tracemalloc.start()
    try:
        read_frames(path, lambda video: [len(video) - 1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * frame_bytes


class TestKeyFramesAlone:
    """What scripts/prepare_videos.sh writes: only what is wanted is read."""

    @staticmethod
    def times_of(path):
        with open_container(str(path)) as (_, stream):
            return key_frame_times(str(path), stream)

    @pytest.mark.parametrize("name", ["key_frames.mp4", "key_frames_uneven.mp4"])
    def test_the_header_says_when_frames_are_shown(self, make, name):
        packets = scan_packets(str(make(name)))
        assert all(packets.keys)
        assert self.times_of(make(name)) == packets.shown()

    @pytest.mark.parametrize(
        "name", ["h264.mp4", "cut.mp4", "key_frames_cut.mp4", "mpeg4.avi", "vp9.webm", "palette.avi"]
    )
    def test_other_videos_are_read_as_ever(self, make, name):
        assert self.times_of(make(name)) is None

    @pytest.mark.parametrize("name", ["key_frames.mp4", "key_frames_uneven.mp4"])
    def test_frames_are_those_of_the_whole_reading(self, make, name, monkeypatch):
        wanted = [39, 7, 7, 0]
        with open_video(make(name)) as video:
            assert video.packets.count == 0
            some = video.read(wanted)
            assert video.packets.count == 0
        monkeypatch.setattr(pyav_reader, "key_frame_times", lambda *_: None)
        with open_video(make(name)) as whole:
            assert np.array_equal(some, whole.read(wanted))
            np.testing.assert_allclose(video.times, whole.times)
            assert video.duration == pytest.approx(whole.duration)

    def test_a_header_that_is_wrong_is_found_out(self, make, monkeypatch):
        right = self.times_of(make("key_frames.mp4"))
        monkeypatch.setattr(pyav_reader, "key_frame_times", lambda *_: [t + 1 for t in right])
        frames, indices, _ = read_frames(make("key_frames.mp4"), lambda _: [20, 3])
        assert files.frame_numbers(frames) == indices == [20, 3]

    def test_a_file_cut_off_in_its_frames_is_not_believed(self, tmp_path):
        options = {"options": {"g": "1"}, "container_options": {"movflags": "faststart"}}
        path = files.write_video(tmp_path / "cut_off.mp4", **options)
        assert self.times_of(path)
        os.truncate(path, path.stat().st_size * 7 // 10)
        assert self.times_of(path) is None
        frames, indices, vlen = read_frames(path, every)
        assert 10 < vlen < 32 and files.frame_numbers(frames) == indices


class TestDamage:
    @pytest.mark.parametrize("key_frames", ["1", "12"])
    @pytest.mark.parametrize("timeout", [None, 120])
    def test_a_bad_packet_costs_its_frame_and_is_said_once(self, tmp_path, caplog, key_frames, timeout):
        options = {"g": key_frames, "x264-params": "scenecut=0"}
        path = files.write_video(tmp_path / "one.mp4", b_frames=0, options=options)
        files.spoil(path, [23])  # the last of its group
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                frames, _, vlen = read_frames(path, every, timeout=timeout)
        assert vlen == 39 and files.frame_numbers(frames) == [i for i in range(40) if i != 23]
        assert caplog.text.count("one.mp4 is damaged: 1 of its packets cannot be decoded") == 1

    def test_one_in_ten_is_too_much_but_what_is_whole_can_be_read(self, tmp_path):
        path = files.spoil(files.write_video(tmp_path / "half.mp4", options={"g": "1"}), range(20, 40))
        with pytest.raises(
            VideoReadError, match=r"half.mp4: 20 of its 40 packets cannot be decoded: damaged"
        ):
            read_clip(path, 12)
        frames, indices, vlen = read_frames(path, lambda _: [3, 19])
        assert files.frame_numbers(frames) == indices == [3, 19] and vlen == 40

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
    def test_frames_too_large_for_memory_are_an_error_of_the_file(self, tmp_path, monkeypatch, name):
        def too_much(*_):
            raise MemoryError

        path = files.write_video(tmp_path / name)
        monkeypatch.setattr(Clip, "add", too_much)
        with pytest.raises(VideoReadError, match=f"{name}: not enough memory for 12 of its frames"):
            read_clip(path, 12)


def test_encrypted_videos_are_an_error(tmp_path, reader):
    path = tmp_path / "encrypted.mp4"
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    files.write_video(path, container_options=key)
    for timeout in (None, 120):
        with pytest.raises(VideoReadError, match=r"encrypted.mp4: is encrypted$"):
            read_clip(path, 12, reader=reader, timeout=timeout)


def test_frames_beyond_any_camera_are_refused(tmp_path):
    """A few bytes can claim to be gigabytes of pixels."""
    path = tmp_path / "huge.png.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16384, 8200, "monob"
        frame = av.VideoFrame(16384, 8200, "monob")
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))  # all black
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert path.stat().st_size < 10**6
    with pytest.raises(VideoReadError, match="16384 by 8200 pixels are not read"):
        read_clip(path, 12)


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="counts bytes by /proc")
def test_a_file_that_is_decoded_from_its_start_is_read_once(tmp_path):
    def bytes_read() -> int:
        with open("/proc/self/io") as file:
            return int(file.readline().removeprefix("rchar:"))

    path = files.write_video(tmp_path / "raw.avi", 12, "rawvideo", (320, 240))
    size = path.stat().st_size
    before = bytes_read()
    with open_video(path) as video:
        first = video.read(every(video))
        assert size <= bytes_read() - before < 1.3 * size
        assert len(first) == 12 and (video.read([11, 3]) == first[[11, 3]]).all()
