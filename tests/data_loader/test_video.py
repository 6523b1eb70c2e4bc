"""Right frames, or an error that names the file and the reason, from every kind of file by every reader."""

import gc
import os
import pickle
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_loader.readers import decord_reader, pyav_reader
from data_loader.readers.packets import Packets, scan_packets
from data_loader.sampling import sample_frames
from data_loader.video import READERS, VideoReadError, read_clip, read_frames
from tests.data_loader import video_files as files

HEVC_OPEN = {"x265-params": "open-gop=1:keyint=8:bframes=3:scenecut=0:log-level=none"}
H264_OPEN = {"x264-params": "open-gop=1:keyint=8:bframes=3:scenecut=0"}
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
UNEVEN = [40 * i + 13 * (i % 3) + (400 if i > 20 else 0) for i in range(40)]
GOP = {"g": "12"}


def avi(path, count=None, **options):
    files.write_video(path, codec="mpeg4", options=GOP, **options)
    return path if count is None else files.set_avi_count(path, count)


def cut(path, first, b_frames):
    source = files.write_video(path.with_name(f"whole_{path.stem}.mp4"), 60, options=GOP, b_frames=b_frames)
    return files.cut_by_copy(source, path, first)


def written(path, content):
    path.write_bytes(content)
    return path


# file name -> (how to make it, the numbers of its frames)
GOOD = {
    "h264.mp4": (lambda p: files.write_video(p, options=GOP, b_frames=0), range(40)),
    "h264_b_frames.mp4": (lambda p: files.write_video(p, options=GOP, b_frames=3), range(40)),
    "open_gop.mp4": (lambda p: files.write_video(p, options=H264_OPEN), range(40)),
    "open_gop_hevc.mp4": (lambda p: files.write_video(p, codec="libx265", options=HEVC_OPEN), range(40)),
    "no_count.mkv": (lambda p: files.write_video(p, b_frames=3), range(40)),
    "mpeg4.avi": (lambda p: avi(p, b_frames=0), range(40)),
    "mpeg4_b_frames.avi": (lambda p: avi(p, b_frames=2), range(40)),
    "count_too_high.avi": (lambda p: avi(p, 400), range(40)),
    "count_too_low.avi": (lambda p: avi(p, 7), range(40)),
    "count_zero.avi": (lambda p: avi(p, 0), range(40)),
    "vp9.webm": (lambda p: files.write_video(p, **VP9), range(40)),
    "uneven_times.mp4": (lambda p: files.write_video(p, times=UNEVEN), range(40)),
    "uneven_times.mkv": (lambda p: files.write_video(p, times=UNEVEN), range(40)),
    "odd_size.webm": (lambda p: files.write_video(p, size=(97, 65), **VP9), range(40)),
    "odd_size.mkv": (lambda p: files.write_video(p, size=(97, 65), pix_fmt="yuv444p"), range(40)),
    "odd_size.avi": (lambda p: avi(p, size=(97, 65)), range(40)),
    "cut.mp4": (lambda p: cut(p, 10, b_frames=3), range(10, 60)),
    "cut_without_b_frames.mp4": (lambda p: cut(p, 30, b_frames=0), range(30, 60)),
    "cut.mkv": (lambda p: cut(p, 10, b_frames=3), range(60)),
    "one_frame.mp4": (lambda p: files.write_video(p, 1), range(1)),
    "one_frame.webm": (lambda p: files.write_video(p, 1, **VP9), range(1)),
    "five_frames.mp4": (lambda p: files.write_video(p, 5), range(5)),
    "grey.mp4": (lambda p: files.write_video(p, pix_fmt="gray"), range(40)),
    "argb.mov": (lambda p: files.write_video(p, codec="qtrle", pix_fmt="argb"), range(40)),
    "rgba.mov": (lambda p: files.write_video(p, codec="png", pix_fmt="rgba"), range(40)),
    "ten_bit.mp4": (lambda p: files.write_video(p, pix_fmt="yuv420p10le"), range(40)),
    "full_range.mp4": (lambda p: files.write_video(p, full_range=True), range(40)),
    "full_range.avi": (
        lambda p: files.write_video(p, codec="mjpeg", pix_fmt="yuvj420p", full_range=True),
        range(40),
    ),
    "program_stream.mpg": (lambda p: files.write_video(p, codec="mpeg2video", b_frames=2), range(40)),
    "transport_stream.ts": (lambda p: files.write_video(p, b_frames=2), range(40)),
    "cut_short.mkv": (lambda p: files.truncate(files.write_video(p, b_frames=0), 0.7), None),
}

# file name -> (how to make it, a word of the reason)
BAD = {
    "missing.mp4": (lambda p: p, "no such file"),
    "folder.mp4": (lambda p: p.mkdir() or p, "not a file"),
    "empty.mp4": (lambda p: written(p, b""), "empty"),
    "not_a_video.mp4": (lambda p: written(p, b"<html>404 not found</html>" * 99), "Invalid data"),
    "sound_only.mp4": (files.write_sound, "no video stream (it holds audio)"),
    "no_index.mp4": (lambda p: files.truncate(files.write_video(p), 0.6), "cut off"),
    "no_frames.avi": (
        lambda p: written(p, avi(p).read_bytes().partition(b"movi")[0] + b"movi"),
        "no video frames",
    ),
}


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    """make(name) -> path of a file of GOOD or BAD, written once."""
    folder, made = tmp_path_factory.mktemp("videos"), {}

    def make(name):
        if name not in made:
            made[name] = (GOOD | BAD)[name][0](folder / name)
        return made[name]

    return make


@pytest.fixture(params=["decord", "pyav", "torchcodec"])
def reader(request):
    if request.param == "torchcodec":
        pytest.importorskip("torchcodec", exc_type=(ImportError, OSError, RuntimeError))
    return request.param


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


def test_frames_come_in_the_order_asked_and_as_often(make):
    for reader in ("decord", "pyav", "decord-unguarded"):
        if reader == "decord-unguarded" and decord_reader.decord is None:
            continue
        frames, indices, _ = read_frames(make("h264_b_frames.mp4"), lambda n: [n - 1, 3, 3, 0], reader)
        assert files.frame_numbers(frames) == indices == [39, 3, 3, 0]


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("reader", ["decord", "pyav"])
def test_rotation_is_applied(tmp_path, degrees, reader):
    plain = read_clip(files.write_video(tmp_path / "plain.mp4"), 12, reader=reader)[0]
    turned = read_clip(files.turn(files.write_video(tmp_path / "turned.mp4"), degrees), 12, reader=reader)[0]
    assert torch.equal(turned, torch.rot90(plain, -degrees // 90, (2, 3)))


def test_pictures_that_cannot_be_decoded_do_not_count(tmp_path):
    source = files.write_video(tmp_path / "whole.mkv", codec="libx265", options=HEVC_OPEN)
    path = files.cut_by_copy(source, tmp_path / "cut.mkv", 10, keep_start=False)
    packets = scan_packets(str(path))
    for reader in ("decord", "pyav"):
        frames, _, vlen = read_frames(path, range, reader)
        assert files.frame_numbers(frames) == list(range(16, 40))  # the first key frame is 16
        assert vlen == 24 < packets.count


@pytest.mark.parametrize("name", GOOD)
def test_decoding_groups_gives_what_decoding_all_gives(make, name):
    path = str(make(name))
    packets, rng = scan_packets(path), np.random.default_rng(0)
    for size in (1, 3, packets.count):
        wanted = set(rng.choice(packets.count, min(size, packets.count), replace=False).tolist())
        some = pyav_reader.decode_groups(path, wanted, packets)
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


def test_key_frames_built_up_over_several_pictures_are_no_start(tmp_path):
    options = {"x264-params": "intra-refresh=1:keyint=8:bframes=0:scenecut=0"}
    path = str(files.write_video(tmp_path / "refresh.mkv", options=options))
    packets = scan_packets(path)
    assert packets.start_clean() and sum(packets.keys) > 1
    assert pyav_reader.decode_groups(path, {30}, packets) is None
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


@pytest.mark.skipif(decord_reader.decord is None, reason="decord is not installed")
class TestGuard:
    """decord reads what it reads rightly, and nothing else."""

    @pytest.fixture
    def no_pyav(self, monkeypatch):
        def refuse(path, choose, packets=None):
            raise VideoReadError(path, "left to PyAV")

        monkeypatch.setattr(pyav_reader, "read", refuse)

    @pytest.mark.parametrize(
        "name", ["h264.mp4", "h264_b_frames.mp4", "vp9.webm", "uneven_times.mp4", "cut.mkv"]
    )
    def test_ordinary_files_go_to_decord(self, make, name, no_pyav):
        frames, indices, _ = read_clip(make(name), 12)
        assert files.frame_numbers(frames) == indices

    @pytest.mark.parametrize(
        "name", ["open_gop.mp4", "open_gop_hevc.mp4", "mpeg4_b_frames.avi", "cut.mp4", "program_stream.mpg"]
    )
    def test_files_that_mislead_decord_do_not(self, make, name, no_pyav):
        with pytest.raises(VideoReadError, match="left to PyAV"):
            read_clip(make(name), 12)

    @pytest.mark.parametrize("starts, count", [([-0.04, 0, 0.04], 3), ([0, 0.04, 0.08], 4)])
    def test_negative_times_and_other_counts_give_it_away(self, monkeypatch, starts, count):
        class Reader:
            def __init__(self, path, **options): ...

            def __len__(self):
                return len(starts)

            def get_frame_timestamp(self, indices):
                return np.stack([np.asarray(starts)[indices]] * 2, axis=1)

        monkeypatch.setattr(decord_reader.decord, "VideoReader", Reader)
        assert decord_reader._read("file.mp4", range, count) is None

    def test_unguarded_does_what_decord_does(self, make):
        frames, indices, _ = read_clip(make("h264.mp4"), 12, reader="decord-unguarded")
        assert files.frame_numbers(frames) == indices
        with pytest.raises(VideoReadError, match=r"not_a_video.mp4: .*\(decord\)") as caught:
            read_clip(make("not_a_video.mp4"), 12, reader="decord-unguarded")
        assert "Stack trace" not in str(caught.value)


def test_without_decord_pyav_reads(make, monkeypatch):
    monkeypatch.setattr(decord_reader, "decord", None)
    frames, indices, _ = read_clip(make("h264.mp4"), 12)
    assert files.frame_numbers(frames) == indices
    with pytest.raises(ImportError, match="pip install decord"):
        read_clip(make("h264.mp4"), 12, reader="decord-unguarded")


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
    with pytest.raises(ValueError, match="unknown video reader 'cv2'; choose one of decord, "):
        read_clip(make("h264.mp4"), 12, reader="cv2")
    assert "cv2" not in READERS


@pytest.mark.parametrize(
    "chosen, message", [([], "no frames were chosen"), ([40], "frames 40 to 40"), ([-1], "-1")]
)
def test_a_wrong_choice_is_the_callers_mistake(make, chosen, message):
    with pytest.raises(ValueError, match=message):
        read_frames(make("h264.mp4"), lambda vlen: chosen)


def test_the_best_video_stream_is_taken(tmp_path):
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
    for reader in ("decord", "pyav"):
        frames, indices, _ = read_clip(path, 12, reader=reader)
        assert frames.shape[2:] == (64, 96)
        assert files.frame_numbers(frames) == indices


def test_the_error_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(VideoReadError("a.mp4", "is broken")))  # noqa: S301
    assert (error.path, error.reason, str(error)) == ("a.mp4", "is broken", "a.mp4: is broken")
    assert str(VideoReadError("a message alone")) == "a message alone"


@pytest.mark.parametrize("reader", ["decord", "pyav"])
@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4_b_frames.avi", "not_a_video.mp4"])
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


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
