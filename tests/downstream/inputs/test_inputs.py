"""Finding the videos that a person names."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from downstream.inputs import find_videos, read_texts
from utils.config import REPOSITORY


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in ("b.mp4", "a.MKV", "deep/er/c.webm", "notes.txt", ".hidden/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(tree: Path, *inputs: object, list_file: Path | None = None) -> list[str]:
    """What is found, relative to the tree; no folder is closed."""
    found, closed = find_videos([str(item) for item in inputs], list_file)
    assert closed == {}
    return [os.path.relpath(path, tree) for path in found]


def test_folders_patterns_and_files(tree):
    assert names(tree, tree) == [".hidden/d.mp4", "a.MKV", "b.mp4", "deep/er/c.webm"]
    assert names(tree, tree / "**/*.webm") == ["deep/er/c.webm"]
    assert names(tree, tree / "**/*.m*") == ["b.mp4"]
    assert names(tree, tree / "?.*") == ["a.MKV", "b.mp4"]
    assert names(tree, tree / "*/*/c.*") == ["deep/er/c.webm"]
    assert names(tree, tree / "notes.txt", tree / "gone.mp4") == ["notes.txt", "gone.mp4"]


def test_patterns_are_relative_to_the_current_folder(tree, monkeypatch):
    monkeypatch.chdir(tree / "deep")
    assert names(tree, "*/*") == ["deep/er/c.webm"]
    assert names(tree, "../*.mp4") == ["b.mp4"]


def test_each_video_once_in_the_order_given(tree):
    assert names(tree, tree / "b.mp4", tree / "deep", tree / "*.M*", tree / "*.mp4") == [
        "b.mp4",
        "deep/er/c.webm",
        "a.MKV",
    ]


def test_a_list_is_relative_to_its_folder(tree):
    (tree / "list.txt").write_text("b.mp4\n\ndeep\n")
    assert names(tree, list_file=tree / "list.txt") == ["b.mp4", "deep/er/c.webm"]


def test_lists_of_windows_and_of_odd_names(tree):
    for name in ("two\nlines.mp4", "zeile\u2028zwei.mp4"):
        (tree / name).write_bytes(b"x")
    content = '\ufeffb.mp4\r\n"two\\nlines.mp4"\r\nzeile\u2028zwei.mp4\r\n'
    (tree / "list.txt").write_bytes(content.encode())
    assert names(tree, list_file=tree / "list.txt") == ["b.mp4", "two\nlines.mp4", "zeile\u2028zwei.mp4"]
    (tree / "list.txt").write_bytes(content.encode("utf-16"))
    with pytest.raises(ValueError, match=r"list\.txt, line 1 holds a zero byte; save the list as UTF-8"):
        find_videos([], tree / "list.txt")


def test_brackets_are_part_of_a_name(tree):
    (tree / "clip 1.mp4").write_bytes(b"x")
    assert names(tree, tree / "clip [1].mp4") == ["clip [1].mp4"]  # deleted: to be reported, not replaced
    (tree / "clip [1].mp4").write_bytes(b"x")
    assert names(tree, tree / "clip [1].mp4") == ["clip [1].mp4"]
    assert names(tree, tree / "clip [*].mp4") == ["clip [1].mp4"]
    (tree / "list.txt").write_text("what?.mp4\nb.mp4\n")
    assert names(tree, list_file=tree / "list.txt") == ["what?.mp4", "b.mp4"]  # one gone stops no list


def test_links_are_followed_and_loops_end(tree):
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere/e.mp4").write_bytes(b"x")
    (tree / "deep/link").symlink_to(tree / "elsewhere")
    (tree / "deep/loop").symlink_to(tree / "deep")
    assert names(tree, tree / "deep") == ["deep/er/c.webm", "deep/link/e.mp4"]
    assert names(tree, tree / "deep/**/*.mp4") == ["deep/link/e.mp4"]


@pytest.mark.heavy
def test_closed_folders_are_named(tree):
    """As another user, since nothing is closed to root."""
    (tree / "deep").chmod(0)
    tree.chmod(0o755)
    script = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from downstream.inputs import find_videos
if os.getuid() == 0:
    os.setuid(65534)
for given in ({str(tree)!r}, {str(tree / "**/*.mp4")!r}):
    print(find_videos([given])[1])
"""
    try:
        for parent in tree.parents:
            if parent.owner() == "root" and str(parent).startswith("/tmp/pytest"):
                parent.chmod(0o755)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    finally:
        (tree / "deep").chmod(0o755)
    expected = str({str(tree / "deep"): "Permission denied"})
    assert done.stdout.splitlines() == [expected] * 2


def test_nothing_found_is_a_mistake(tree):
    (tree / "empty").mkdir()
    for wrong in ([], [tree / "empty"], [tree / "*.avi"], [tree / "gone/*.mp4"]):
        with pytest.raises(ValueError, match=r"no videos|no file"):
            find_videos(wrong)


def test_texts(tmp_path):
    assert read_texts(["a dog", "the sea"]) == ["a dog", "the sea"]
    assert read_texts(["see README.txt"]) == ["see README.txt"]
    with pytest.raises(FileNotFoundError, match=r"no file of texts .*texts\.txt"):
        read_texts([str(tmp_path / "texts.txt")])
    (tmp_path / "texts.txt").write_bytes("\ufeffa dog\r\n\r\nMüll\r\n".encode())
    assert read_texts([str(tmp_path / "texts.txt")]) == ["a dog", "Müll"]
    (tmp_path / "texts.txt").write_bytes("a dog\nMüll\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"texts\.txt, line 2: byte 0xfc is not UTF-8"):
        read_texts([str(tmp_path / "texts.txt")])


def test_urls_and_the_files_behind_a_pattern(tree, bucket):
    import fsspec

    for name in ("b.mp4", "a.mp4", "note.txt"):
        with fsspec.open(f"{bucket}/{name}", "wb") as file:
            file.write(b"x")
    url, *found = find_videos(["https://host/a.mp4?x=1", f"{bucket}/*.mp4"])[0]
    assert url == "https://host/a.mp4?x=1"
    assert [each.replace("memory:///", "memory://") for each in found] == [
        f"{bucket}/a.mp4",
        f"{bucket}/b.mp4",
    ]
    (tree / "list.txt").write_text("s3://bucket/a b.mp4\nb.mp4\n")
    assert find_videos([], tree / "list.txt")[0] == ["s3://bucket/a b.mp4", str(tree / "b.mp4")]
    with pytest.raises(ValueError, match="fsspec knows no nowhere://"):
        find_videos(["nowhere://x/a.mp4"])


def test_tar_files_stand_for_their_videos(tree):
    with tarfile.open(tree / "x.tar", "w") as tar:
        for name in ("b.mp4", "notes.txt", "deep/er/c.webm"):
            tar.add(tree / name, name)
    (tree / "broken.tar").write_bytes(b"x" * 2000)
    found, closed = find_videos([tree / "*.tar"])
    assert found == [str(tree / "x.tar/b.mp4"), str(tree / "x.tar/deep/er/c.webm")]
    assert (
        list(closed) == [str(tree / "broken.tar")] and "no whole tar file" in closed[str(tree / "broken.tar")]
    )


def test_folders_of_frames_count_where_there_are_no_videos(tree):
    for name in ("frames/x/1.jpg", "frames/x/2.jpg", "frames/y/1.png", "deep/cover1.jpg"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"x")
    assert names(tree, tree / "frames") == ["frames/x", "frames/y"]
    assert names(tree, tree / "frames/y") == ["frames/y"]
    assert names(tree, tree / "deep") == ["deep/er/c.webm"]
