import pytest
import torch

from data_loader import build_dataset
from data_loader.failures import TRIES
from tests.data_loader import worlds
from tests.data_loader.worlds import options

MASK = {"mask_ratio": 0.5, "num_patches": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.webvid(tmp_path_factory.mktemp("webvid"))


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


def test_a_key_gives_the_same_sample_again_and_again(world):
    dataset = build_dataset("webvid", "train", **MASK, **options(world))
    again = build_dataset("webvid", "train", **MASK, **options(world))
    assert same(dataset[(2, 3)], again[(2, 3)])
    assert same(dataset[3], again[(0, 3)])


def test_epochs_and_seeds_draw_differently(world):
    dataset = build_dataset("webvid", "train", **MASK, **options(world))
    other = build_dataset("webvid", "train", seed=1, **MASK, **options(world))
    for a, b in ((dataset[(0, 3)], dataset[(1, 3)]), (dataset[3], other[3])):
        assert not torch.equal(a["video"], b["video"])
        assert not torch.equal(a["keep_ind"], b["keep_ind"])


def test_splits_decide_frames_crop_and_mask(world):
    train, val, test = (
        build_dataset("webvid", "val", view=view, **MASK, **options(world))
        for view in ("train", "val", "test")
    )
    assert train[0]["keep_ind"].shape == val[0]["keep_ind"].shape == (8,)
    assert "keep_ind" not in test[0]
    assert not torch.equal(val[(0, 0)]["video"], val[(1, 0)]["video"])
    assert torch.equal(test[(0, 0)]["video"], test[(1, 0)]["video"])


def test_short_videos_are_padded(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    worlds.put_video(world / "data/train/000/0.mp4", 5)
    item = build_dataset("webvid", "train", **options(world))[0]
    assert item["valid_frames"] == 5
    assert item["video"].shape[0] == 12
    assert not item["video"][5:].any()


def test_an_unreadable_file_is_replaced_and_reported(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    broken = worlds.break_file(world / "data/train/000/0.mp4")
    dataset = build_dataset("webvid", "train", **options(world))
    item = dataset[(0, 0)]
    assert item["index"] != 0
    assert item["id"] == dataset.records.id(item["index"])
    assert item["text"] == [dataset.records.captions[item["index"]]]
    [(path, reason)] = item["failures"]
    assert path == str(broken)
    assert reason
    assert same(item, dataset[(0, 0)])
    assert len({dataset[(epoch, 0)]["index"] for epoch in range(10)}) > 1


def test_a_missing_file_is_replaced_too(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    (world / "data/train/000/2.mp4").unlink()
    item = build_dataset("webvid", "train", **options(world))[2]
    assert item["failures"][0][1] == "no such file"


def test_training_gives_up_after_many_unreadable_files_in_a_row(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    for path in (world / "data/train").rglob("*.mp4"):
        worlds.break_file(path)
    message = rf"{TRIES} videos in a row of webvid .*is that the right folder\?"
    with pytest.raises(RuntimeError, match=message):
        build_dataset("webvid", "train", **options(world))[0]


def test_cache_and_time_limit_change_no_sample(world):
    plain = build_dataset("webvid", "train", **MASK, **options(world))
    cached = build_dataset("webvid", "train", cache_mb=10, timeout=60, **MASK, **options(world))
    for _ in range(2):
        assert same(plain[(1, 2)], cached[(1, 2)])
    assert len(cached.cache) == 1


def test_keys_out_of_range(world):
    dataset = build_dataset("webvid", "train", **options(world))
    for key in (8, -1, (0, 8)):
        with pytest.raises(IndexError, match="of 8"):
            dataset[key]


def test_unknown_names_and_options_say_what_there_is(world):
    with pytest.raises(ValueError, match="unknown data set 'webvd'; did you mean 'webvid'"):
        build_dataset("webvd", "train", **options(world))
    with pytest.raises(ValueError, match="unknown data set 'x'; there are yttemporal, webvid"):
        build_dataset("x", "train", **options(world))
    with pytest.raises(ValueError, match=r"data set 'webvid'.*'cut'"):
        build_dataset("webvid", "train", cut="jsfusion", **options(world))
    with pytest.raises(ValueError, match=r"data set 'webvid'.*'root'"):
        build_dataset("webvid", "train")
    with pytest.raises(ValueError, match="unknown split 'valid': choose one of train, val, test"):
        build_dataset("webvid", "valid", **options(world))
    with pytest.raises(ValueError, match="no format 'tar'; shards are for yttemporal, narrated, webvid"):
        build_dataset("webvid", "train", format="tar", **options(world))
    with pytest.raises(ValueError, match="needs num_patches"):
        build_dataset("webvid", "train", mask_ratio=0.5, **options(world))


def test_the_release_s_reader_for_yt_temporal_becomes_the_default_with_a_note(world, caplog):
    dataset = build_dataset("webvid", "train", **MASK, **{**options(world), "reader": "cv2"})
    assert dataset.reader == "pyav"
    assert "reader cv2 is read as pyav" in caplog.text
