"""Reading under a time limit: what hangs or crashes costs one file, not the run; and memory that is kept."""

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data_loader.sampling import sample_frames
from data_loader.video import VideoReadError, open_video, process, read_clip, read_frames
from tests.data_loader import video_files as files
from utils.config import REPOSITORY

LONG = 120  # seconds no read here comes near


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return files.write_video(tmp_path_factory.mktemp("videos") / "video.mp4", b_frames=3)


@pytest.fixture(autouse=True)
def no_child_left():
    yield
    process.end_children()


def child_pid():
    return process._children[0].process.pid


@pytest.mark.parametrize("reader", ["decord", "pyav"])
def test_the_child_gives_the_same_frames(video, reader):
    there, here = (read_clip(video, 12, reader=reader, timeout=t) for t in (LONG, None))
    assert torch.equal(there[0], here[0]) and there[1:] == here[1:]
    assert files.frame_numbers(there[0]) == sample_frames(12, 40)
    assert there[0].dtype == torch.uint8


def test_one_child_serves_many_reads(video, monkeypatch):
    read_clip(video, 12, timeout=LONG)
    first = child_pid()
    monkeypatch.chdir(video.parent)
    for count in (1, 40, 3):  # results of other sizes
        frames, indices, _ = read_clip(video.name, count, timeout=LONG)
        assert files.frame_numbers(frames) == indices
    assert child_pid() == first


def test_errors_come_back_and_the_child_goes_on(video, tmp_path):
    read_clip(video, 1, timeout=LONG)
    first = child_pid()
    with pytest.raises(VideoReadError, match=r"sound.mp4: has no video stream \(it holds audio\)"):
        read_clip(files.write_sound(tmp_path / "sound.mp4"), 12, timeout=LONG)
    with pytest.raises(VideoReadError, match="no such file"):
        read_clip(tmp_path / "missing.mp4", 12, timeout=LONG)
    assert read_clip(video, 12, timeout=LONG)[2] == 40
    assert child_pid() == first


def test_a_hanging_reader_is_given_up_and_the_next_file_read(video):
    read_clip(video, 1, timeout=LONG)
    hanging = child_pid()
    os.kill(hanging, signal.SIGSTOP)  # as deaf as a decoder in an endless loop
    with pytest.raises(VideoReadError, match=r"video.mp4: not read within 0.2 s, given up \(reader pyav\)"):
        read_clip(video, 12, timeout=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(hanging, 0)
    assert read_clip(video, 12, timeout=LONG)[2] == 40


def test_a_crash_is_reported_with_its_file(video):
    def crash(video):
        os.kill(child_pid(), signal.SIGSEGV)
        return [0]

    with pytest.raises(VideoReadError, match=r"video.mp4: the decoder crashed \(exit status -11"):
        read_frames(video, crash, timeout=LONG)
    assert read_clip(video, 12, timeout=LONG)[2] == 40


def test_a_child_that_has_died_meanwhile_is_replaced(video):
    read_clip(video, 1, timeout=LONG)
    process._children[0].process.kill()
    process._children[0].process.wait()
    assert read_clip(video, 12, timeout=LONG)[2] == 40


def test_a_failing_choice_does_not_upset_the_exchange(video):
    with pytest.raises(ValueError, match="no frames were chosen"):
        read_frames(video, lambda video: [], timeout=LONG)
    assert read_clip(video, 12, timeout=LONG)[2] == 40


def test_mistakes_in_the_call_stay_what_they_are(video, monkeypatch):
    with pytest.raises(ValueError, match="unknown video reader 'cv2'"):
        read_clip(video, 12, reader="cv2", timeout=LONG)
    process.end_children()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "no_decord"))
    with pytest.raises(ImportError, match="pip install decord"):
        read_clip(video, 12, reader="decord", timeout=LONG)


def test_a_child_that_cannot_start_is_no_broken_video(video, monkeypatch):
    monkeypatch.setattr(process, "BOOT", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="the process that decodes videos could not start") as caught:
        read_clip(video, 12, timeout=LONG)
    assert not isinstance(caught.value, VideoReadError)


def test_the_child_goes_with_its_process(video):
    """The parent is killed without a chance to tidy up."""
    program = (
        "import os, signal\n"
        "from data_loader.video import process\n"
        f"video = process.RemoteVideo({str(video)!r}, 'pyav', {LONG})\n"
        "print(process._children[0].process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, check=False)
    assert run.returncode == -signal.SIGKILL
    assert has_ended(int(run.stdout))


def has_ended(pid):
    """Waits for the end of a process that is not ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    import select

    ended, _, _ = select.select([descriptor], [], [], LONG)
    os.close(descriptor)
    return bool(ended)


class Clips(Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return read_clip(self.path, 12, timeout=LONG)[0].contiguous(), process._children[0].process.pid


@pytest.mark.heavy
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers_have_a_child_each(video, context):
    read_clip(video, 1, timeout=LONG)  # the parent's own child is open while the workers start
    ours = child_pid()
    loader = DataLoader(Clips(video), num_workers=2, multiprocessing_context=context)
    batches = list(loader)
    for clip, _ in batches:
        assert files.frame_numbers(clip[0]) == sample_frames(12, 40)
    pids = {int(pid) for _, pid in batches}
    assert len(pids) == 2 and ours not in pids
    assert all(has_ended(pid) for pid in pids)
    assert read_clip(video, 12, timeout=LONG)[2] == 40
    assert child_pid() == ours


def test_a_fork_lets_go_of_the_child(video):
    read_clip(video, 1, timeout=LONG)
    results = multiprocessing.get_context("fork").SimpleQueue()
    fork = multiprocessing.get_context("fork").Process(
        target=lambda: results.put(process._children == process._idle == [])
    )
    fork.start()
    assert results.get() is True
    fork.join()


def test_several_videos_can_be_open_at_once(video):
    with open_video(video, timeout=LONG) as one, open_video(video, timeout=LONG) as other:
        frames = [v.read([i]) for i in (3, 30) for v in (one, other)]
        assert [files.frame_numbers(f.transpose(0, 3, 1, 2))[0] for f in frames] == [3, 3, 30, 30]
        assert one.child is not other.child
    assert len(process._idle) == 2
    with pytest.raises(ValueError, match="the video is closed"):
        one.read([0])


# Pages that a process maps while it allocates four arrays of 8 MB and frees them, 20 times over.
PAGES = """
import resource, sys
import numpy as np
from data_loader.video.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def read():
    clips = [np.zeros(8 * 2**20, np.uint8) + 1 for _ in range(4)]
read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    read()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.heavy
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has these settings")
def test_freed_memory_is_not_mapped_anew():
    def pages(how):
        return int(subprocess.check_output([sys.executable, "-c", PAGES, how], cwd=REPOSITORY))

    assert pages("kept") < pages("default") / 10
