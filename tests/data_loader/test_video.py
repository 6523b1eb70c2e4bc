"""Right frames, or an error that names the file and the reason, from every kind of file by every reader."""

import gc
import os
import pickle
import sys
from types import SimpleNamespace

import pytest
import torch

from data_loader.readers import decord_reader
from data_loader.sampling import sample_frames
from data_loader.video import READERS, VideoReadError, read_clip, read_frames
from tests.data_loader import video_files as files
from tests.data_loader.video_kinds import BAD, GOOD


@pytest.mark.parametrize("name", GOOD)
def test_every_frame_is_the_right_one(make, name, reader):
    expected = GOOD[name][1]
    frames, indices, vlen = read_frames(make(name), range, reader)
    assert frames.dtype == torch.uint8 and frames.shape[:2] == (vlen, 3)
    assert indices == list(range(vlen))
    numbers = files.frame_numbers(frames)
    assert numbers == list(expected if expected is not None else range(len(numbers)))


@pytest.mark.parametrize("name", GOOD)
def test_a_clip_takes_the_frames_it_names(make, name, reader):
    expected = GOOD[name][1]
    frames, indices, vlen = read_clip(make(name), 12, reader=reader)
    first = expected[0] if expected is not None else 0
    assert indices == sample_frames(12, vlen)
    assert files.frame_numbers(frames) == [first + i for i in indices]


@pytest.mark.parametrize("name", BAD)
def test_errors_name_the_file_and_the_reason(make, name, reader):
    path = make(name)
    with pytest.raises(VideoReadError) as caught:
        read_clip(path, 12, reader=reader)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    if reader != "torchcodec":
        assert BAD[name][1] in caught.value.reason


def test_frames_come_in_the_order_asked_and_as_often(make, reader):
    frames, indices, _ = read_frames(make("h264_b_frames.mp4"), lambda n: [n - 1, 3, 3, 0], reader)
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


@pytest.mark.parametrize(
    ("name", "degrees"), [("turned clockwise", 90), ("upside down", 180), ("turned counter-clockwise", 270)]
)
def test_rotation_is_applied(tmp_path, name, degrees, reader):
    plain = read_clip(files.write_video(tmp_path / "plain.mp4"), 12, reader=reader)[0]
    path = files.orient(files.write_video(tmp_path / "turned.mp4"), files.ORIENTATIONS[name])
    assert torch.equal(read_clip(path, 12, reader=reader)[0], torch.rot90(plain, -degrees // 90, (2, 3)))


@pytest.mark.skipif(decord_reader.decord is None, reason="decord is not installed")
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
    monkeypatch.setattr(decord_reader, "decord", None)
    with pytest.raises(ImportError, match="pip install decord"):
        read_clip(make("h264.mp4"), 12, reader="decord")


def test_torchcodec_alone_is_off_in_avis_without_time_stamps(make, torchcodec):
    """Why our reader leaves these files to PyAV. Should this fail some day, it need not any more."""
    from torchcodec.decoders import VideoDecoder

    video = VideoDecoder(str(make("mpeg4_b_frames.avi")), seek_mode="exact")
    asked = [5, 20, 35]
    given = files.frame_numbers(video.get_frames_at(asked).data)
    assert all(abs(g - a) == 1 for g, a in zip(given, asked, strict=True))
    frames = read_frames(make("mpeg4_b_frames.avi"), lambda vlen: asked, "torchcodec")[0]
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
    def choose(vlen):
        raise kind("a fault of the program")

    with pytest.raises(kind, match=r"^a fault of the program$") as caught:
        read_frames(make("h264.mp4"), choose, timeout=timeout)
    assert not isinstance(caught.value, VideoReadError)


@pytest.mark.parametrize(
    "chosen, message", [([], "no frames were chosen"), ([40], "frames 40 to 40"), ([-1], "-1")]
)
def test_a_wrong_choice_is_the_callers_mistake(make, chosen, message):
    with pytest.raises(ValueError, match=message):
        read_frames(make("h264.mp4"), lambda vlen: chosen)


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
