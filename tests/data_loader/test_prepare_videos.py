"""Re-encoding a tree of videos: the same frames under the same names, resumable, with failures listed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from data_loader.prepare.encoding import Encoding, encode, is_being_written
from data_loader.prepare.videos import main
from data_loader.transforms import clip_transform
from data_loader.video import read_clip, read_frames
from data_loader.video.packets import scan_packets
from tests.data_loader import video_files as files
from utils.config import REPOSITORY


def every_frame(video):
    return range(len(video))


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
        frames, _, vlen = read_frames(target, every_frame, reader)
        assert files.frame_numbers(frames) == list(range(vlen)) == list(range(40))
    assert frames.shape == read_clip(source, 40)[0].shape
    packets = scan_packets(str(target))
    assert packets.are_timed() and packets.start_clean() and not any(packets.hidden)
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
    assert files.frame_numbers(read_frames(tmp_path / "new.mp4", every_frame)[0]) == list(range(10, 60))


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
    assert found == [Path("deep/er/old.avi"), Path("plain.mp4"), Path("prepared.jsonl")]
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
    assert sorted(names(out)) == ["old.avi", "plain.mp4", "unreadable.tsv"]
    for name in ("broken.mp4", "sound.mp4"):
        (tree / name).unlink()
    assert main([str(tree), str(out)]) == 0
    assert not (out / "unreadable.tsv").exists()


@pytest.fixture(scope="module")
def slow_video(tmp_path_factory):
    """One that takes minutes to encode with the options SLOW."""
    path = tmp_path_factory.mktemp("slow") / "slow.mkv"
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuvj420p"
        for _ in range(100):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    return path


SLOW = ("--short_side", "720", "--preset", "placebo", "--crf", "0", "--key_frames", "50")


@pytest.fixture
def running(tree, slow_video, tmp_path):
    """The command at work on a slow video, in a process group of its own, and the processes that encode."""
    (tree / "slow.mkv").symlink_to(slow_video)
    command = [
        sys.executable,
        "-m",
        "data_loader.prepare.videos",
        tree,
        tmp_path / "out",
        *SLOW,
        "--jobs",
        "3",
    ]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=REPOSITORY
    ) as process:
        try:
            wait_until(lambda: sorted(names(tmp_path / "out")) == [".slow.mkv", "old.avi", "plain.mp4"])
            yield process, tmp_path / "out"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def names(out):
    """The files in a folder but for the records, those half written without number and ending."""
    found = (p.name for p in out.rglob("*") if p.is_file() and p.name != "prepared.jsonl")
    return [name.rpartition(".")[0].rpartition(".")[0] if name.startswith(".") else name for name in found]


def encoder_in(out):
    """The process that is writing a video, by the file's name."""
    [path] = out.glob("*.unfinished")
    return int(path.name.split(".")[-2])


def has_ended(process):
    status = Path(f"/proc/{process}/status")
    return not status.exists() or "zombie" in status.read_text()


@pytest.mark.heavy
def test_encoders_end_with_a_killed_parent_and_leave_nothing(running):
    process, out = running
    encoder = encoder_in(out)
    process.kill()
    wait_until(lambda: has_ended(encoder))
    assert sorted(names(out)) == ["old.avi", "plain.mp4"]


def test_what_is_half_written_is_removed_when_nobody_writes_it(running, tree):
    process, out = running
    (tree / "slow.mkv").unlink()
    assert main([str(tree), str(out), *SLOW]) == 0
    assert ".slow.mkv" in names(out)  # another run is at it
    [unfinished] = out.glob("*.unfinished")
    os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: not is_being_written(unfinished))
    assert unfinished.exists()
    assert main([str(tree), str(out), *SLOW]) == 0
    assert sorted(names(out)) == ["old.avi", "plain.mp4"]


@pytest.mark.heavy
def test_a_crash_costs_one_file_alone(running):
    process, out = running
    os.kill(encoder_in(out), signal.SIGKILL)
    assert process.wait(300) == 1
    assert "slow.mkv\tthe process writing it crashed (exit status -9)" in process.stderr.read()
    assert sorted(names(out)) == ["old.avi", "plain.mp4", "unreadable.tsv"]


def test_an_interrupt_stops_the_jobs(running):
    process, out = running
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 130
    assert "stopped; the same command goes on from here" in process.stderr.read()
    assert sorted(names(out)) == ["old.avi", "plain.mp4"]


def test_a_file_that_takes_too_long_costs_itself_alone(tree, slow_video, tmp_path):
    (tree / "slow.mkv").symlink_to(slow_video)
    out = tmp_path / "out"
    assert main([str(tree), str(out), *SLOW, "--timeout", "2"]) == 1
    assert (out / "unreadable.tsv").read_text() == "slow.mkv\tnot done within 2 s\n"
    assert sorted(names(out)) == ["old.avi", "plain.mp4", "unreadable.tsv"]


def test_originals_are_not_written_over(tree, capsys):
    original = next(path for path in sorted(tree.rglob("*")) if path.is_file())
    inner = tree / tree.name / original.relative_to(tree)
    inner.parent.mkdir(parents=True)
    inner.write_bytes(original.read_bytes())
    with pytest.raises(SystemExit):
        main([str(tree), str(tree.parent)])
    assert f"{inner} would be written into {tree}, where originals lie" in capsys.readouterr().err
    inner.unlink()
    assert main([str(tree), str(tree.parent)]) == 0  # beside them


def test_a_source_that_has_changed_is_written_anew(tree, tmp_path):
    out = tmp_path / "out"
    assert main([str(tree), str(out)]) == 0
    before = (out / "deep/er/old.avi").stat().st_mtime_ns
    files.write_video(tree / "plain.mp4", 7)
    assert main([str(tree), str(out)]) == 0
    assert len(read_clip(out / "plain.mp4", 40)[0]) == 7
    assert (out / "deep/er/old.avi").stat().st_mtime_ns == before


def test_other_options_are_refused_until_told_to_overwrite(tree, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(tree), str(out)]) == 0
    files.write_video(tree / "new.mp4", 5)
    smaller = [str(tree), str(out), "--short_side", "32"]
    with pytest.raises(SystemExit) as ended:
        main(smaller)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "made with --short_side 268 (2, deep/er/old.avi among them)" in said
    assert main([*smaller, "--overwrite"]) == 0
    shapes = {p.name: read_clip(p, 1)[0].shape[2:] for p in out.rglob("*.*") if p.suffix in (".mp4", ".avi")}
    assert shapes == dict.fromkeys(("old.avi", "plain.mp4", "new.mp4"), (32, 48))
    before = (out / "plain.mp4").stat().st_mtime_ns
    assert main([*smaller, "--overwrite"]) == 0  # an interrupted one goes on, too
    assert (out / "plain.mp4").stat().st_mtime_ns == before


def test_a_record_that_was_cut_off_costs_one_video(tree, tmp_path):
    out = tmp_path / "out"
    assert main([str(tree), str(out)]) == 0
    records = out / "prepared.jsonl"
    records.write_bytes(records.read_bytes()[:-9])
    times = {name: (out / name).stat().st_mtime_ns for name in ("plain.mp4", "deep/er/old.avi")}
    os.utime(tree / "plain.mp4")
    assert main([str(tree), str(out)]) == 0
    assert {name for name in times if (out / name).stat().st_mtime_ns != times[name]} == {"plain.mp4"}


NAMES = [b"a:b.mp4", b"two\nlines\tand [1] 100%.mp4", b"caf\xe9.mp4", b"n" * 250 + b".mp4", b"\xc3\xbc.GIF"]


def test_names_of_all_kinds(tmp_path, monkeypatch):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    plain = files.write_video(tmp_path / "plain.mp4", 5)
    for name in NAMES:
        (source / os.fsdecode(name)).write_bytes(plain.read_bytes())
    monkeypatch.chdir(source)
    assert main([".", str(out)]) == 0
    assert sorted(map(os.fsencode, os.listdir(out))) == sorted([*NAMES, b"prepared.jsonl"])
    written = {name: (out / os.fsdecode(name)).stat().st_mtime_ns for name in NAMES}
    for name in NAMES:
        assert scan_packets(str(out / os.fsdecode(name))).count == 5
    assert main([".", str(out)]) == 0
    assert written == {name: (out / os.fsdecode(name)).stat().st_mtime_ns for name in NAMES}


def test_a_list_of_failures_has_a_line_each(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in NAMES:
        (source / os.fsdecode(name)).write_bytes(b"")
    assert main([str(source), str(out)]) == 1
    listed = (out / "unreadable.tsv").read_text().splitlines()
    assert [line.partition("\t")[0] for line in listed] == sorted(
        ["a:b.mp4", r"two\nlines\tand [1] 100%.mp4", r"caf\udce9.mp4", "n" * 250 + ".mp4", "ü.GIF"]
    )
    assert all(line.endswith("\tthe file is empty") for line in listed)


@pytest.mark.parametrize("ending", [".gif", ".m2ts", ".MTS", ".vob"])
def test_endings_of_cameras_and_discs(tmp_path, ending):
    source = tmp_path / "in" / f"video{ending}"
    source.parent.mkdir()
    if ending == ".gif":
        files.write_video(source, 12, "gif", pix_fmt="rgb8")
    elif ending == ".vob":
        files.write_video(source, 12, "mpeg2video")
    else:  # FFmpeg knows the container by another ending
        files.write_video(tmp_path / "made.ts", 12).rename(source)
    assert main([str(source.parent), str(tmp_path / "out")]) == 0
    assert files.frame_numbers(read_frames(tmp_path / "out" / source.name, every_frame)[0]) == list(range(12))


def test_linked_folders_are_walked_and_closed_ones_named(plain_user):
    source, out = plain_user / "in", plain_user / "out"
    for folder in (source / "closed", plain_user / "elsewhere"):
        folder.mkdir(parents=True)
        files.write_video(folder / "video.mp4", 3)
    (source / "link").symlink_to(plain_user / "elsewhere")
    (plain_user / "elsewhere" / "back").symlink_to(source)
    (source / "closed").chmod(0)
    assert main([str(source), str(out)]) == 1
    assert (out / "unreadable.tsv").read_text() == "closed\tcannot be entered: Permission denied\n"
    assert sorted(names(out)) == ["unreadable.tsv", "video.mp4"]
    assert (out / "link" / "video.mp4").is_file()


def test_a_folder_that_cannot_be_written_is_said_at_once(plain_user, capsys):
    source, out = plain_user / "in", plain_user / "out"
    source.mkdir()
    files.write_video(source / "video.mp4", 3)
    out.mkdir(mode=0o555)
    with pytest.raises(SystemExit) as ended:
        main([str(source), str(out)])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said == (
        f"error: could not write {out}: Permission denied; see that there is room and that the folder can be "
        "written, or name another\n"
    )


@pytest.mark.heavy
def test_a_disk_that_takes_no_more_stops_the_run(tree, slow_video, tmp_path):
    """A limit on the size of files, which fails as a full disk does, in writing."""
    for number in range(30):
        (tree / f"{number:02d}.mkv").symlink_to(slow_video)
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash"]  # 100 KiB
    command = [sys.executable, "-m", "data_loader.prepare.videos", str(tree), str(tmp_path / "out")]
    run = subprocess.run(
        [*limited, *command, "--jobs", "2", "--preset", "ultrafast"],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert run.returncode == 2
    assert (
        f"error: could not write {tmp_path / 'out'}/0" in run.stderr and "File too large; see" in run.stderr
    )
    assert "Traceback" not in run.stderr and names(tmp_path / "out") == []


def test_a_full_disk_is_not_the_videos_fault(tree):
    with pytest.raises(OSError, match="No space left"):
        encode(tree / "plain.mp4", Path("/dev/full"), Encoding())


def test_a_pipe_is_no_video(tmp_path):
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe.mp4")
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "unreadable.tsv").read_text() == "pipe.mp4\tis not a file\n"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--short_side", "0"), "0 is not 2 or more"),
        (("--crf", "99"), "99 is not 0 to 51"),
        (("--preset", "fats"), "invalid choice: 'fats'"),
        (("--jobs", "0"), "0 is not 1 or more"),
        (("--timeout", "0"), "0 is not above 0"),
    ],
)
def test_options_are_looked_at_before_the_videos(tree, tmp_path, capsys, option, message):
    with pytest.raises(SystemExit):
        main([str(tree), str(tmp_path / "out"), *option])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_calls(tree, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    for source, target, message in (
        (tmp_path / "nowhere", tmp_path / "out", "no folder"),
        (tree, tree / "out", "name a folder outside of it"),
        (tmp_path / "bare", tmp_path / "out", "holds no videos"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(source), str(target)])
        assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.heavy
def test_the_script(tree, tmp_path):
    script = REPOSITORY / "scripts" / "prepare_videos.sh"
    run = subprocess.run(
        [script, "in", "out", "--short_side", "32"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert read_clip(tmp_path / "out" / "plain.mp4", 1)[0].shape[2:] == (32, 48)
