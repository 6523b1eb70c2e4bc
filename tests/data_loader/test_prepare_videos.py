"""Re-encoding a tree of videos: the same frames under the same names, resumable, with failures listed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from data_loader.prepare import videos
from data_loader.prepare.videos import Encoding, encode, main
from data_loader.readers import VideoReadError
from data_loader.readers.packets import Packets, scan_packets
from data_loader.transforms import clip_transform
from data_loader.video import read_clip, read_frames
from tests.data_loader import video_files as files


def facts(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return {"kinds": {s.type for s in container.streams}, "codec": stream.codec_context.name}


@pytest.fixture
def tree(tmp_path):
    source = tmp_path / "in"
    (source / "deep" / "er").mkdir(parents=True)
    files.write_video(source / "plain.mp4")
    files.write_video(source / "deep" / "er" / "old.avi", codec="mpeg4", b_frames=2)
    (source / "deep" / "notes.json").write_text("{}")
    return source


@pytest.mark.parametrize(
    "name, options",
    [
        ("b_frames.mp4", {"b_frames": 3}),
        ("old.avi", {"codec": "mpeg4", "b_frames": 2}),
        ("odd.mkv", {"size": (97, 65), "pix_fmt": "yuv444p"}),
        ("deep.mp4", {"pix_fmt": "yuv420p10le"}),
        ("grey.mp4", {"pix_fmt": "gray"}),
    ],
)
def test_frames_stay_the_same(tmp_path, name, options):
    source, target = files.write_video(tmp_path / name, **options), tmp_path / f"new_{name}"
    assert encode(source, target, Encoding()) == 40
    for reader in ("decord", "pyav"):
        frames, _, vlen = read_frames(target, range, reader)
        assert files.frame_numbers(frames) == list(range(vlen)) == list(range(40))
    assert frames.shape == read_clip(source, 40)[0].shape
    packets = scan_packets(str(target))
    assert packets.are_timed() and packets.start_clean() and not any(packets.discarded)
    assert facts(target) == {"kinds": {"video"}, "codec": "h264"}


def test_key_frames_come_as_often_as_asked(tmp_path):
    source = files.write_video(tmp_path / "video.mp4")
    encode(source, tmp_path / "new.mp4", Encoding(key_frames=5))
    with av.open(str(tmp_path / "new.mp4")) as container:
        keys = [p.is_keyframe for p in container.demux(video=0) if p.size]
    gaps = np.diff([*np.flatnonzero(keys), 40])
    assert gaps.max() <= 5


def test_times_and_cuts_are_kept(tmp_path):
    times = [40 * i + 13 * (i % 3) + (400 if i > 20 else 0) for i in range(40)]
    source = files.write_video(tmp_path / "uneven.mkv", times=times)
    encode(source, tmp_path / "new.mkv", Encoding())
    with av.open(str(tmp_path / "new.mkv")) as container:
        seconds = [frame.time for frame in container.decode(video=0)]
    assert seconds == pytest.approx([t / 1000 for t in times], abs=1e-4)

    whole = files.write_video(tmp_path / "whole.mp4", 60, options={"g": "12"})
    encode(files.cut_by_copy(whole, tmp_path / "cut.mp4", 10), tmp_path / "new.mp4", Encoding())
    assert files.frame_numbers(read_frames(tmp_path / "new.mp4", range)[0]) == list(range(10, 60))


@pytest.mark.parametrize("matrix", files.ORIENTATIONS.values(), ids=files.ORIENTATIONS)
def test_the_orientation_is_made_one_with_the_pixels(tmp_path, matrix):
    source = files.write_video(tmp_path / "video.mp4", 3)
    stored = read_clip(source, 3, reader="pyav")[0]
    files.orient(source, matrix)
    encode(source, tmp_path / "new.mp4", Encoding())
    expected = [files.shown(frame.permute(1, 2, 0).numpy(), matrix) for frame in stored]
    for path, distance in ((source, 0), (tmp_path / "new.mp4", 5)):
        frames = read_clip(path, 3, reader="pyav")[0].permute(0, 2, 3, 1).numpy()
        assert frames.shape == np.shape(expected)
        assert abs(frames.astype(int) - np.stack(expected)).mean() <= distance
    with av.open(str(tmp_path / "new.mp4")) as container:
        assert next(container.decode(video=0)).side_data.get("DISPLAYMATRIX") is None


def test_pixels_are_those_of_the_data_sets_resize(tmp_path):
    """So that loading the new file gives the old clip, but for the compression."""
    source, target = tmp_path / "video.mkv", tmp_path / "new.mkv"
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((640, 480))
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    encode(source, target, Encoding(crf=1))
    old, new = (read_clip(path, 3, reader="pyav")[0] for path in (source, target))
    assert new.shape[2:] == (268, 357)
    transform = clip_transform("test")
    assert (transform(old).float() - transform(new).float()).abs().mean() < 1
    assert not torch.equal(old, new)


def test_a_tree_keeps_its_shape(tree, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(tree), str(out), "--jobs", "2"]) == 0
    found = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    assert found == [Path("deep/er/old.avi"), Path("plain.mp4")]
    assert files.frame_numbers(read_clip(out / "deep/er/old.avi", 40)[0]) == list(range(40))
    assert "all done" in capsys.readouterr().out


def test_a_second_call_does_only_what_is_missing(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert main([str(tree), str(out)]) == 0
    before = (out / "plain.mp4").stat().st_mtime_ns
    (out / "deep" / "er" / "old.avi").unlink()
    assert main([str(tree), str(out)]) == 0
    assert (out / "deep" / "er" / "old.avi").exists()
    assert (out / "plain.mp4").stat().st_mtime_ns == before


def test_failures_are_listed_and_leave_nothing_behind(tree, tmp_path, capsys):
    (tree / "broken.mp4").write_bytes(b"<html>" * 99)
    files.write_sound(tree / "sound.mp4")
    out = tmp_path / "out"
    assert main([str(tree), str(out)]) == 1
    listed = (out / "unreadable.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["broken.mp4", "sound.mp4"]
    assert "Invalid data" in listed[0] and "no video stream" in listed[1]
    assert "2 videos failed" in capsys.readouterr().err
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == ["old.avi", "plain.mp4", "unreadable.tsv"]
    for name in ("broken.mp4", "sound.mp4"):
        (tree / name).unlink()
    assert main([str(tree), str(out)]) == 0
    assert not (out / "unreadable.tsv").exists()


def hang(source, target, encoding):
    target.write_bytes(b"half")
    time.sleep(600)


def crash(source, target, encoding):
    target.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "body, reason", [(hang, "not done within 0.5 s"), (crash, "crashed (exit status -9)")]
)
def test_a_file_that_hangs_or_crashes_costs_itself_alone(tree, tmp_path, monkeypatch, body, reason):
    plain = videos.encode

    def sometimes(source, target, encoding):
        return (body if source.name == "old.avi" else plain)(source, target, encoding)

    monkeypatch.setattr(videos, "encode", sometimes)
    out = tmp_path / "out"
    limit = "0.5" if body is hang else "60"
    assert main([str(tree), str(out), "--timeout", limit, "--jobs", "1"]) == 1
    assert reason in (out / "unreadable.tsv").read_text()
    assert not [p for p in out.rglob(".*") if p.is_file()]


def test_an_interrupt_stops_the_jobs(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(videos, "encode", hang)
    started = []
    plain_wait = videos.wait

    def interrupt(connections, timeout):
        started.extend(connections)
        plain_wait(connections, 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(videos, "wait", interrupt)
    out = tmp_path / "out"
    assert main([str(tree), str(out), "--jobs", "2"]) == 130
    assert len(started) == 2 and all(connection.closed for connection in started)
    assert "goes on from here" in capsys.readouterr().err
    assert not [p for p in out.rglob("*") if p.is_file()]


def test_frames_that_get_lost_are_noticed(tmp_path, monkeypatch):
    source = files.write_video(tmp_path / "video.mp4", 5)
    monkeypatch.setattr(videos, "scan_packets", lambda path: Packets("mp4", [0] * 4, [True] * 4, [False] * 4))
    with pytest.raises(VideoReadError, match="5 frames came in and 4 went out"):
        encode(source, tmp_path / "new.mp4", Encoding())


def test_wrong_calls(tree, tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert main([str(tree), str(tree / "out")]) == 2
    assert "name a folder outside of it" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    assert main([str(tmp_path / "bare"), str(tmp_path / "out")]) == 2
    assert "holds no videos" in capsys.readouterr().err


def test_the_script(tree, tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "prepare_videos.sh"
    run = subprocess.run(
        [script, "in", "out", "--short_side", "32"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert read_clip(tmp_path / "out" / "plain.mp4", 1)[0].shape[2:] == (32, 48)
