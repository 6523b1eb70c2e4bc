"""Videos that are no plain files: behind URLs, in tar files, and as folders of frames."""

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_loader.video import VideoReadError, file_state, open_video, process, sources
from tests.data_loader import video_files as files
from tests.data_loader.file_server import Server
from tests.extras import extra


@pytest.fixture
def server(tmp_path, monkeypatch):
    extra("aiohttp")
    monkeypatch.setattr(sources, "WAITS", (0.01, 0.01, 0.01))
    server = Server(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def numbers(path: str, indices, timeout=None) -> list[int]:
    with open_video(path, timeout=timeout) as video:
        return files.frame_numbers(video.read(indices).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_video_behind_a_url_reads_as_the_file(server, tmp_path, timeout):
    path = files.write_video(tmp_path / "a b.mp4")
    assert numbers(server.url("a%20b.mp4"), [3, 30, 7], timeout) == [3, 30, 7]
    size, modified = file_state(server.url("a%20b.mp4"))
    assert size == path.stat().st_size and modified > 0
    os.utime(path, (1, 1))  # another ETag
    assert file_state(server.url("a%20b.mp4"))[1] != modified
    server.etags = False
    before = file_state(server.url("a%20b.mp4"))
    os.utime(path, (99, 99))
    assert file_state(server.url("a%20b.mp4"))[1] != before[1] > 0
    with pytest.raises(VideoReadError, match="no such file"):
        numbers(server.url("gone.mp4"), [0], timeout)
    process.end_children()


def test_key_frames_are_read_without_the_rest(server, tmp_path, monkeypatch):
    """The header stands at the end of the file, as encoders write it."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2**14)
    noise = {"g": "1", "crf": "0", "x264-params": "nal-hrd=none"}
    path = files.write_video(tmp_path / "a.mp4", 60, size=(640, 480), options=noise, codec="libx264")
    content = path.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    # Padding between the frames and the header, as sound would lie there: a file of 20 MB.
    start = content.index(b"moov") - 4
    path.write_bytes(
        content[:start] + (20_000_000).to_bytes(4, "big") + b"free" + bytes(20_000_000 - 8) + content[start:]
    )
    assert numbers(server.url("a.mp4"), [2, 50]) == [2, 50]
    assert server.sent < 2_000_000 < path.stat().st_size


def test_a_server_without_ranges_sends_the_whole_file(server, tmp_path):
    server.ranges = False
    files.write_video(tmp_path / "a.mp4")
    assert numbers(server.url("a.mp4"), [3, 30]) == [3, 30]
    (tmp_path / "large").write_bytes(bytes(range(256)) * 2**13)
    with sources.RemoteFile(server.url("large")) as file:
        file.seek(2**20 + 5)
        assert file.read(3) == bytes([5, 6, 7])


@pytest.mark.parametrize("announced", [True, False])
def test_a_whole_file_is_copied_only_where_there_is_room(server, tmp_path, monkeypatch, announced):
    server.ranges, server.announces = False, announced
    size = 2**21
    (tmp_path / "a.mp4").write_bytes(bytes(size))
    free = shutil.disk_usage(tempfile.gettempdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free._replace(free=sources.SPARE_BYTES + size - 1))
    with pytest.raises(VideoReadError, match=rf"no parts of files.*has room for {size - 1:,}.*TMPDIR"):
        file = sources.RemoteFile(server.url("a.mp4"))
        file.seek(2**20)
        file.read(1)


def test_a_broken_connection_is_tried_again_then_reported(server, tmp_path):
    files.write_video(tmp_path / "a.mp4")
    server.to_break = 2
    assert numbers(server.url("a.mp4"), [5]) == [5]
    server.to_break, server.asked = 10**6, 0
    with pytest.raises(VideoReadError, match=r"a\.mp4: cannot be fetched: .*\(tried 4 times\)"):
        numbers(server.url("a.mp4"), [5])
    assert server.asked == 4
    server.to_break = 0
    assert numbers(server.url("a.mp4"), [5]) == [5]


def test_a_connection_that_breaks_late_is_no_end_of_the_file(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2**12)
    path = files.write_video(tmp_path / "a.mkv", 60, size=(320, 240), options={"g": "1"})
    assert path.stat().st_size > 2**13
    with open_video(server.url("a.mkv")) as video:
        assert len(video) == 60
        server.to_break = 10**6
        monkeypatch.setattr("data_loader.video.pyav_reader.KEPT_BYTES", 0)
        video.kept = None
        with pytest.raises(VideoReadError, match="cannot be fetched"):
            video.read([50])


def test_a_bucket(bucket, tmp_path):
    import fsspec

    for name, content in (("a.mp4", files.write_video(tmp_path / "a.mp4").read_bytes()), ("empty.mp4", b"")):
        with fsspec.open(f"{bucket}/{name}", "wb") as file:
            file.write(content)
    assert numbers(f"{bucket}/a.mp4", [9, 1], timeout=60.0) == [9, 1]
    for name, why in (("empty.mp4", "the file is empty"), ("gone.mp4", "no such file")):
        with pytest.raises(VideoReadError, match=why):
            open_video(f"{bucket}/{name}")
    with pytest.raises(VideoReadError, match="reader decord reads files of this machine alone"):
        open_video(f"{bucket}/a.mp4", reader="decord")


def test_a_playlist_opens_no_other_files(tmp_path):
    import fsspec

    video = files.write_video(tmp_path / "a.ts", codec="mpeg2video")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\nfile://{video}\n#EXT-X-ENDLIST\n"
    fsspec.filesystem("memory").pipe("/list.m3u8", playlist.encode())
    with pytest.raises(VideoReadError):
        open_video("memory://list.m3u8")


def test_protocols_that_nobody_opens():
    with pytest.raises(ValueError, match="fsspec knows no nowhere://"):
        sources.check_protocol("nowhere://a/b.mp4")
    with pytest.raises(ValueError, match="gs:// needs a package that is not installed: pip install gcsfs"):
        pytest.importorskip("gcsfs") if _has("gcsfs") else sources.check_protocol("gs://a/b.mp4")


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("remote", [False, True])
def test_members_of_tar_files(tmp_path, remote):
    for i in range(2):
        files.write_video(tmp_path / f"{i}.mp4", first=20 * i, num_frames=20)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for i in range(2):
            tar.add(tmp_path / f"{i}.mp4", f"deep/{i}.mp4")
        tar.add(__file__, "about.txt")
    archive = str(tmp_path / "x.tar")
    if remote:
        import fsspec

        archive = "memory://x.tar"
        fsspec.filesystem("memory").pipe("/x.tar", (tmp_path / "x.tar").read_bytes())
    assert numbers(f"{archive}/deep/1.mp4", [3, 0]) == [23, 20]
    assert file_state(f"{archive}/deep/1.mp4") == (
        (tmp_path / "1.mp4").stat().st_size,
        file_state(archive)[1],
    )
    with pytest.raises(VideoReadError, match="no such file in the tar file"):
        open_video(f"{archive}/2.mp4")


def test_members_that_are_links_or_have_dots_in_front(tmp_path):
    """As `tar -c .` names them, and as it keeps a file that has two names."""
    files.write_video(tmp_path / "1.mp4", num_frames=20)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "1.mp4", "./deep/1.mp4")
        for name, kind, to in (
            ("./deep/hard.mp4", tarfile.LNKTYPE, "./deep/1.mp4"),
            ("./deep/soft.mp4", tarfile.SYMTYPE, "1.mp4"),
            ("./out.mp4", tarfile.SYMTYPE, "/etc/passwd"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, to
            tar.addfile(member)
    archive = tmp_path / "x.tar"
    assert list(sources.tar_members(str(archive))) == [
        "deep/1.mp4", "deep/hard.mp4", "deep/soft.mp4", "out.mp4",
    ]  # fmt: skip
    for name in ("deep/1.mp4", "deep/hard.mp4", "deep/soft.mp4"):
        assert numbers(f"{archive}/{name}", [3, 0]) == [3, 0]
    with pytest.raises(VideoReadError, match="is a link to what is no file in the tar file"):
        open_video(f"{archive}/out.mp4")


def test_of_a_name_that_comes_twice_the_first_is_read_and_it_is_named(tmp_path, caplog):
    for i in range(2):
        files.write_video(tmp_path / f"{i}.mp4", first=20 * i, num_frames=20)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "0.mp4", "a.mp4")
        tar.add(tmp_path / "1.mp4", "b.mp4")
        tar.add(tmp_path / "1.mp4", "./a.mp4")
        link = tarfile.TarInfo("b.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "a.mp4"
        tar.addfile(link)
    assert numbers(f"{tmp_path}/x.tar/a.mp4", [3, 0]) == [3, 0]
    assert numbers(f"{tmp_path}/x.tar/b.mp4", [3, 0]) == [23, 20]
    (said,) = caplog.messages  # once, not with every file
    assert (
        said == f"{tmp_path}/x.tar: names in it that come again: 2; the first of each is read: a.mp4, b.mp4"
    )


def test_a_tar_file_that_is_cut_off(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)
    with pytest.raises(VideoReadError, match=r"x\.tar: is no whole tar file"):
        sources.tar_members(str(tmp_path / "x.tar"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Frames 1 to 12, without leading zeros: 10 comes behind 9."""
    (tmp_path / "frames").mkdir()
    for number in range(1, 13):
        Image.fromarray(files.numbered_frame(number, 96, 64)).save(tmp_path / f"frames/img_{number}.png")
    (tmp_path / "frames/notes.txt").write_text("x")
    return tmp_path / "frames"


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_folder_of_frames(folder, timeout):
    with open_video(folder, timeout=timeout, frame_rate=10.0) as video:
        assert len(video) == 12 and video.duration == pytest.approx(1.2)
        np.testing.assert_allclose(video.times, np.arange(12) / 10)
        frames = video.read([9, 0, 9])
    assert files.frame_numbers(frames.transpose(0, 3, 1, 2)) == [10, 1, 10]
    with open_video(folder) as video:
        assert video.duration == pytest.approx(12 / 25)
    size, modified = file_state(str(folder))
    assert size == sum(path.stat().st_size for path in folder.glob("*.png")) and modified > 0
    process.end_children()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "img_7.png").unlink(), "frame 7 of 1 to 12 is missing"),
        (
            lambda folder: (folder / "img_7.png").rename(folder / "cover.png"),
            r"the frame cover\.png has no number",
        ),
        (lambda folder: (folder / "img_7.png").rename(folder / "pic_7.png"), "are called otherwise"),
        (lambda folder: (folder / "img_7.png").rename(folder / "img_07.jpg"), None),
        (
            lambda folder: (folder / "img_07.png").write_bytes(b"x"),
            r"img_07\.png and img_7\.png are both frame 7",
        ),
        (lambda folder: (folder / "img_1.png").write_bytes(b"x"), r"img_1\.png: cannot identify"),
        (
            lambda folder: [path.unlink() for path in folder.glob("*.png")],
            "is not a file, nor a folder of frames",
        ),
    ],
)
def test_folders_that_are_no_video(folder, change, message):
    change(folder)
    if message is None:
        assert len(open_video(folder)) == 12
        return
    with pytest.raises(VideoReadError, match=message):
        open_video(folder)


def test_frames_that_cannot_be_read_are_named(folder):
    content = (folder / "img_5.png").read_bytes()
    (folder / "img_5.png").write_bytes(content[: len(content) - 30])
    Image.fromarray(np.zeros((64, 96), np.uint16)).save(folder / "img_6.png")
    Image.fromarray(files.numbered_frame(7, 192, 128)).save(folder / "img_7.png")  # scaled to the first
    with open_video(folder) as video:
        with pytest.raises(VideoReadError, match=r"img_5\.png: "):
            video.read([4])
        with pytest.raises(VideoReadError, match=r"img_6\.png: its pixels have more than 8 bits"):
            video.read([5])
        assert files.frame_numbers(video.read([6, 7]).transpose(0, 3, 1, 2)) == [7, 8]
