"""What several tests of this folder need."""

import pytest

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
