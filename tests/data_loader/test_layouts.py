"""Every data set in its layout; and every folder, list and column that it needs, named if missing."""

import json
import shutil

import pytest

from data_loader import DATASETS, build_dataset
from tests.data_loader import worlds
from tests.data_loader.worlds import options

SPLITS = {"yttemporal": "train", "webvid": "train"}
WORLDS = {name: getattr(worlds, name) for name in DATASETS if name not in ("csv", "narrated", "labels")}


@pytest.fixture(params=WORLDS)
def world(request, tmp_path):
    return request.param, WORLDS[request.param](tmp_path)


def open_world(world):
    name, folder = world
    return build_dataset(name, SPLITS.get(name, "test"), **options(folder))


def lists_of(world) -> list:
    """The files of metadata that the data set reads: those it cannot be opened without."""
    needed = []
    for path in sorted((world[1] / "meta_data").rglob("*.*")):
        content = path.read_bytes()
        path.unlink()
        try:
            open_world(world)
        except FileNotFoundError:
            needed.append(path)
        path.write_bytes(content)
    return needed


def test_items_of_every_data_set(world):
    dataset = open_world(world)
    assert len(dataset) > 0
    for index in range(len(dataset)):
        item = dataset[index]
        assert item["video"].shape == (12, 3, worlds.SIZE, worlds.SIZE)
        assert item["text"] and all(isinstance(text, str) for text in item["text"])
        assert dataset.video_paths[index].is_file()


def test_a_missing_root_is_named(world):
    shutil.rmtree(world[1] / "data")
    with pytest.raises(FileNotFoundError, match=f"{world[1]}/data.* is missing: .*{world[0]}"):
        open_world(world)


def test_every_missing_list_is_named_and_how_to_make_it(world):
    needed = lists_of(world)
    assert needed
    for path in needed:
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(FileNotFoundError) as caught:
            open_world(world)
        path.write_bytes(content)
        assert f"{path} is missing: " in str(caught.value)
        assert f"python -m data_loader.prepare {world[0]}" in str(caught.value)
        assert "python -m model.download meta_data" in str(caught.value)


@pytest.mark.parametrize("content", ["", "other\n1\n2\n"])
def test_a_list_without_what_it_should_hold_is_named(world, content):
    for path in lists_of(world):
        before = path.read_bytes()
        path.write_text(json.dumps(content) if path.suffix == ".json" else content)
        with pytest.raises(ValueError, match=path.name):
            open_world(world)
        path.write_bytes(before)
