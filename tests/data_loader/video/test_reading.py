"""Right frames, or an error that names the file and the reason, from every kind of file by every reader."""

import gc
import importlib.util
import os
import pickle
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_loader.sampling import sample_frames
from data_loader.video import READERS, VideoReadError, open_video, read_clip, read_frames, read_in_parts
from tests.data_loader import video_files as files
from tests.data_loader.video_kinds import BAD, GOOD, HEVC_OPEN, UNEVEN


def every(video):
    """All frames of an open video."""
    return range(len(video))


@pytest.mark.parametrize("name", GOOD)
def test_every_frame_is_the_right_one(make, name, reader):
    expected = GOOD[name][1]
    frames, indices, vlen = read_frames(make(name), every, reader)
    assert frames.dtype == torch.uint8 and frames.shape[:2] == (vlen, 3)
    assert indices == list(range(vlen))
    numbers = files.frame_numbers(frames)
    assert numbers == list(expected if expected is not None else range(len(numbers)))


@pytest.mark.parametrize("name", GOOD)
def test_a_clip_takes_the_frames_it_names(make, name, reader):
    frames, indices, vlen = read_clip(make(name), 12, reader=reader)
    expected = GOOD[name][1] or range(vlen)
    assert indices == sample_frames(12, vlen)
    assert files.frame_numbers(frames) == [expected[i] for i in indices]


TIMES = {
    "uneven_times.mp4": np.array(UNEVEN) / 1000,
    "uneven_times.mkv": np.array(UNEVEN) / 1000,
    "key_frames_uneven.mp4": np.array(UNEVEN) / 1000,
    "repeats.ogv": np.arange(20) / 25,
    "one_frame.mp4": np.zeros(1),
    "hidden_vp8.webm": np.array([i for i in range(40) if i != 7]) / 25,
    "cut.mp4": np.arange(50) / 25,
    "open_gop_hevc.mp4": np.arange(40) / 25,
    "mpeg4_b_frames.avi": np.arange(40) / 25,
    "program_stream.mpg": np.arange(40) / 25,
    "transport_stream.ts": np.arange(40) / 25,
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("timeout", [None, 120])
def test_frames_have_their_times(make, name, timeout, reader):
    with open_video(make(name), reader, timeout) as video:
        np.testing.assert_allclose(video.times, TIMES[name], atol=0.0011)  # Matroska counts milliseconds
        assert len(video) == len(TIMES[name])
        assert video.duration - video.times[-1] == pytest.approx(0.04, abs=0.014)


@pytest.mark.parametrize("offset", [0, 3_000_000])
def test_the_duration_is_that_of_the_picture(tmp_path, offset):
    """Sound that goes on, and a first frame that comes late, do not count."""
    path = files.write_late_video(tmp_path / "late.mkv", start_ms=700 + offset, num_frames=10, sound_s=60)
    with open_video(path) as video:
        assert len(video) == 10
        np.testing.assert_allclose(video.times, np.arange(10) / 25, atol=0.0011)
        assert video.duration == pytest.approx(0.4, abs=0.002)


@pytest.mark.parametrize("name", BAD)
def test_errors_name_the_file_and_the_reason(make, name, reader):
    path = make(name)
    with pytest.raises(VideoReadError) as caught:
        read_clip(path, 12, reader=reader)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    if reader != "torchcodec":
        assert BAD[name][1] in caught.value.reason


@pytest.mark.parametrize("timeout", [None, 120])
@pytest.mark.parametrize("name", ["a:b.mp4", "file:a.mp4", "caf\udce9.mp4", "clip [1] %d.mp4", "a\nb.mp4"])
def test_any_name_will_do(make, tmp_path, monkeypatch, name, timeout):
    """A colon is no protocol, and the second last is no UTF-8."""
    shutil.copy(make("h264_b_frames.mp4"), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (name, tmp_path / name):
        frames, indices, _ = read_clip(path, 12, timeout=timeout)
        assert files.frame_numbers(frames) == indices


def test_frames_come_in_the_order_asked_and_as_often(make, reader):
    frames, indices, _ = read_frames(
        make("h264_b_frames.mp4"), lambda video: [len(video) - 1, 3, 3, 0], reader
    )
    assert files.frame_numbers(frames) == indices == [39, 3, 3, 0]


@pytest.mark.parametrize("name", ["h264.mp4", "h264_b_frames.mp4", "uneven_times.mkv", "cut.mp4"])
def test_readers_agree_to_the_bit(make, name, reader):
    exact = read_clip(make(name), 12, reader="pyav")[0]
    assert torch.equal(read_clip(make(name), 12, reader=reader)[0], exact)


@pytest.mark.parametrize(
    ("name", "darkest", "brightest"),
    [("h264.mp4", 0, 255), ("ten_bit.mp4", 0, 255), ("grey.mp4", 0, 255), ("full_range.mp4", 0, 255)],
)
def test_black_and_white_fill_the_range_whatever_the_file_says(make, name, darkest, brightest, reader):
    frames = read_clip(make(name), 12, reader=reader)[0]
    assert abs(int(frames.min()) - darkest) <= 6
    assert abs(int(frames.max()) - brightest) <= 6


@pytest.mark.parametrize("name", files.ORIENTATIONS)
def test_all_orientations_are_applied(tmp_path, name, reader):
    matrix = files.ORIENTATIONS[name]
    plain = read_clip(files.write_video(tmp_path / "plain.mp4"), 12, reader=reader)[0]
    path = files.orient(files.write_video(tmp_path / "turned.mp4"), matrix)
    turned = read_clip(path, 12, reader=reader)[0]
    for stored, frame in zip(plain, turned, strict=True):
        expected = files.shown(stored.permute(1, 2, 0).numpy(), matrix)
        np.testing.assert_array_equal(frame.permute(1, 2, 0), expected)


def test_a_size_that_changes_is_that_of_the_first_frame(tmp_path, reader):
    """As where two clips were appended: each frame is scaled, and none smeared."""
    path = files.write_two_sizes(tmp_path / "two.ts", ((96, 64), 10), ((192, 128), 10))
    frames, _, vlen = read_frames(path, every, reader)
    assert frames.shape == (20, 3, 64, 96) and vlen == 20
    assert files.frame_numbers(frames) == list(range(20))


@pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")
class TestDecord:
    """decord as it is: what the official release would read."""

    @pytest.mark.parametrize(
        "name", ["h264.mp4", "h264_b_frames.mp4", "vp9.webm", "uneven_times.mp4", "cut.mkv"]
    )
    def test_the_default_gives_its_bits_where_it_is_right(self, make, name):
        ours, theirs = (read_clip(make(name), 12, reader=reader) for reader in ("pyav", "decord"))
        assert torch.equal(ours[0], theirs[0]) and ours[1:] == theirs[1:]
        assert files.frame_numbers(theirs[0]) == theirs[1]

    def test_it_is_not_corrected_where_it_is_wrong(self, make):
        frames, indices, _ = read_clip(make("open_gop.mp4"), 12, reader="decord")
        assert files.frame_numbers(frames) != indices

    def test_its_errors_are_short(self, make):
        with pytest.raises(VideoReadError, match=r"not_a_video.mp4: .*\(decord\)") as caught:
            read_clip(make("not_a_video.mp4"), 12, reader="decord")
        assert "Stack trace" not in str(caught.value)


def test_decord_missing_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(ImportError, match="pip install decord"):
        read_clip(make("h264.mp4"), 12, reader="decord")


def test_torchcodec_alone_is_off_in_avis_without_time_stamps(make, torchcodec):
    """Why our reader leaves these files to PyAV. Should this fail some day, it need not any more."""
    from torchcodec.decoders import VideoDecoder

    video = VideoDecoder(str(make("mpeg4_b_frames.avi")), seek_mode="exact")
    asked = [5, 20, 35]
    given = files.frame_numbers(video.get_frames_at(asked).data)
    assert all(abs(g - a) == 1 for g, a in zip(given, asked, strict=True))
    frames = read_frames(make("mpeg4_b_frames.avi"), lambda video: asked, "torchcodec")[0]
    assert files.frame_numbers(frames) == asked


def test_torchcodec_missing_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ImportError, match="pip install torchcodec"):
        read_clip(make("h264.mp4"), 12, reader="torchcodec")


@pytest.mark.parametrize(
    "message, kind", [("Could not load libtorchcodec.", ImportError), ("No frames.\nmore", VideoReadError)]
)
def test_torchcodec_without_its_libraries_is_no_broken_video(make, monkeypatch, message, kind):
    def refuse(path, **options):
        raise RuntimeError(message)

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=refuse))
    with pytest.raises(kind, match=message.partition("\n")[0]):
        read_clip(make("h264.mp4"), 12, reader="torchcodec")


def test_unknown_reader(make):
    with pytest.raises(ValueError, match="unknown video reader 'cv2'; choose one of pyav, decord"):
        read_clip(make("h264.mp4"), 12, reader="cv2")
    assert "cv2" not in READERS
    with pytest.raises(ValueError, match="'decord-unguarded' is now called 'decord'"):
        read_clip(make("h264.mp4"), 12, reader="decord-unguarded")


@pytest.mark.parametrize("timeout", [None, 120])
@pytest.mark.parametrize("kind", [OSError, ValueError, IndexError, RuntimeError])
def test_a_choice_that_fails_is_no_broken_video(make, kind, timeout):
    def choose(video):
        raise kind("a fault of the program")

    with pytest.raises(kind, match=r"^a fault of the program$") as caught:
        read_frames(make("h264.mp4"), choose, timeout=timeout)
    assert not isinstance(caught.value, VideoReadError)


@pytest.mark.parametrize(
    "chosen, message", [([], "no frames were chosen"), ([40], "frames 40 to 40"), ([-1], "-1")]
)
def test_a_wrong_choice_is_the_callers_mistake(make, chosen, message):
    with pytest.raises(ValueError, match=message):
        read_frames(make("h264.mp4"), lambda video: chosen)


def test_the_best_video_stream_is_taken(tmp_path, reader):
    import av

    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        small, large = (container.add_stream("libx264", rate=25) for _ in range(2))
        for stream, size in ((small, (32, 32)), (large, (96, 64))):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for stream, count in ((small, 1), (large, 20)):
            for i in range(count):
                picture = files.numbered_frame(i, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    frames, indices, _ = read_clip(path, 12, reader=reader)
    assert frames.shape[2:] == (64, 96)
    assert files.frame_numbers(frames) == indices


def test_the_error_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(VideoReadError("a.mp4", "is broken")))  # noqa: S301
    assert (error.path, error.reason, str(error)) == ("a.mp4", "is broken", "a.mp4: is broken")
    assert str(VideoReadError("a message alone")) == "a message alone"


@pytest.mark.parametrize("name", ["h264.mp4", "key_frames.mp4", "mpeg4_b_frames.avi", "not_a_video.mp4"])
def test_three_hundred_opens_leave_nothing_behind(make, name, reader):
    path = make(name)

    def open_often(times):
        for _ in range(times):
            try:
                read_clip(path, 2, reader=reader)
            except VideoReadError:
                assert name in BAD
        gc.collect()
        return resident_bytes(), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    before, after = open_often(20), open_often(300)
    assert after[0] - before[0] < 10 * 2**20
    assert after[1:] == before[1:]


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_many_frames_are_read_in_parts(make):
    """So that no more of them are in memory than there is room for."""
    asked, sizes = [39, 0, 0, 17, *range(40)], []

    def smaller(frames):
        sizes.append(frames[0].numel() * len(frames))
        return frames[:, :, ::2, ::2]

    with open_video(make("open_gop.mp4")) as video:
        frames, indices = read_in_parts(video, lambda _: asked, smaller, most_bytes=5 * 3 * 64 * 96)
    assert indices == asked and files.frame_numbers(frames) == asked
    assert [size // (3 * 64 * 96) for size in sizes] == [12, 5, 5, 5, 5, 5, 3]


def test_parts_start_over_where_the_count_is_wrong(tmp_path):
    source = files.write_video(tmp_path / "whole.mkv", codec="libx265", options=HEVC_OPEN)
    path = files.cut_by_copy(source, tmp_path / "cut.mkv", 10, keep_start=False)
    with open_video(path) as video:
        frames, indices = read_in_parts(video, every, lambda frames: frames, most_bytes=1)
    assert indices == list(range(24)) and files.frame_numbers(frames) == list(range(16, 40))
