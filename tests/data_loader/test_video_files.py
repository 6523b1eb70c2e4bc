"""Finding files below a folder: behind links too, and what cannot be entered is named."""

import os
from pathlib import Path

import pytest

from data_loader.video_files import walk_files


@pytest.fixture
def tree(tmp_path):
    """A folder `here` that leads by a link to another one, which leads back to it."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here / "a", there / "b"):
        folder.mkdir(parents=True)
        (folder / "video.mp4").touch()
    (here / "link").symlink_to(there)
    (here / "twin").symlink_to(there / "b")
    (there / "back").symlink_to(here)
    (here / "to_itself").symlink_to(here / "to_itself")
    (here / "gone.mp4").symlink_to(tmp_path / "gone")
    return here


def test_links_are_followed_and_loops_end(tree):
    files, closed = walk_files(tree)
    expected = ["a/video.mp4", "gone.mp4", "link/b/video.mp4", "twin/video.mp4"]
    assert [str(path.relative_to(tree)) for path in files] == expected
    assert closed == {tree / "to_itself": "Too many levels of symbolic links"}


def test_closed_folders_are_named(plain_user):
    for name in ("closed", "open"):
        (plain_user / name).mkdir()
        (plain_user / name / "video.mp4").touch()
    (plain_user / "closed").chmod(0)
    files, closed = walk_files(plain_user)
    assert files == [plain_user / "open" / "video.mp4"]
    assert closed == {plain_user / "closed": "Permission denied"}


def test_a_folder_that_is_not_there(tmp_path):
    assert walk_files(tmp_path / "nowhere") == ([], {tmp_path / "nowhere": "No such file or directory"})


def test_names_of_any_bytes(tmp_path):
    name = b"caf\xe9 [1]\n.mp4"
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).touch()
    assert [os.fsencode(path.name) for path in walk_files(tmp_path)[0]] == [name]
