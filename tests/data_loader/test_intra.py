"""Videos of key frames alone: only what is wanted is read, and nothing is taken on trust."""

import os

import numpy as np
import pytest

from data_loader.readers import pyav_reader
from data_loader.readers.container import open_video
from data_loader.readers.errors import VideoReadError
from data_loader.readers.intra import key_frame_times
from data_loader.readers.packets import scan_packets
from tests.data_loader import video_files as files


def times_of(path):
    with open_video(str(path)) as (_, stream):
        return key_frame_times(str(path), stream)


@pytest.mark.parametrize("name", ["key_frames.mp4", "key_frames_uneven.mp4"])
def test_the_header_says_when_frames_are_shown(make, name):
    packets = scan_packets(str(make(name)))
    assert all(packets.keys)
    assert times_of(make(name)) == packets.shown()


@pytest.mark.parametrize("name", ["h264.mp4", "cut.mp4", "key_frames_cut.mp4", "mpeg4.avi", "vp9.webm"])
def test_other_videos_are_read_as_ever(make, name):
    assert times_of(make(name)) is None


@pytest.mark.parametrize("name", ["key_frames.mp4", "key_frames_uneven.mp4"])
def test_frames_are_those_of_the_whole_reading(make, name, monkeypatch):
    path, wanted = str(make(name)), [39, 7, 7, 0]
    whole = pyav_reader.read(path, lambda n: wanted, scan_packets(path))
    monkeypatch.setattr(pyav_reader, "list_packets", None)  # what a reading of all packets would need
    clip = pyav_reader.read(path, lambda n: wanted)
    assert np.array_equal(clip.frames, whole.frames)
    assert (clip.indices, clip.vlen) == (wanted, 40)


def test_a_header_that_is_wrong_is_found_out(make, monkeypatch):
    path = str(make("key_frames.mp4"))
    right = times_of(path)
    monkeypatch.setattr(pyav_reader, "key_frame_times", lambda *_: [t + 1 for t in right])
    clip = pyav_reader.read(path, lambda n: [20, 3])
    assert files.frame_numbers(clip.frames.transpose(0, 3, 1, 2)) == [20, 3]


def test_a_file_cut_off_in_its_frames_is_not_believed(tmp_path):
    options = {"options": {"g": "1"}, "container_options": {"movflags": "faststart"}}
    path = files.write_video(tmp_path / "cut_off.mp4", **options)
    assert times_of(path)
    os.truncate(path, path.stat().st_size * 7 // 10)
    assert times_of(path) is None
    with pytest.raises(VideoReadError, match=r"cut_off\.mp4"):
        pyav_reader.read(str(path), lambda n: [n - 1])
