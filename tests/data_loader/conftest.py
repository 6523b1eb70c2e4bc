"""What several tests of this folder need."""

import os

import pytest

from data_loader.prepare.__main__ import main
from data_loader.video import read_frames
from tests.data_loader.video_kinds import BAD, GOOD


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    """make(name) -> path of a video of `video_kinds`, written once."""
    folder, made = tmp_path_factory.mktemp("videos"), {}

    def make(name):
        if name not in made:
            made[name] = (GOOD | BAD)[name][0](folder / name)
        return made[name]

    return make


@pytest.fixture(scope="session")
def torchcodec(make):
    """Skips where this optional package or FFmpeg's libraries are not installed; CI requires them."""
    try:
        read_frames(make("h264.mp4"), lambda video: [0], "torchcodec")
    except ImportError as error:
        if os.environ.get("REQUIRE_TORCHCODEC"):
            raise
        pytest.skip(f"torchcodec is not installed: {error}")


@pytest.fixture(params=["pyav", "torchcodec"])
def reader(request):
    """Each reader that is to give the right frames of every file."""
    if request.param == "torchcodec":
        request.getfixturevalue("torchcodec")
    return request.param


@pytest.fixture
def prepare(tmp_path, capsys):
    """Run a builder on `tmp_path`; returns what it printed."""

    def run(name: str, *arguments, status: int = 0) -> str:
        where = ["--meta", str(tmp_path / "meta_data"), "--root", str(tmp_path / "data")]
        assert main([name, *map(str, arguments), *where]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    (tmp_path / "data").mkdir()
    return run
