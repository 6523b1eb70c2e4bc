import pytest

from data_loader import build_dataset
from tests.data_loader import worlds
from tests.data_loader.worlds import options

LISTS = "data/high-quality/structured-symlinks"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.msrvtt(tmp_path_factory.mktemp("msrvtt"))


def test_the_1k_a_test_takes_the_indexed_caption_and_sorts_by_image_id(world):
    dataset = build_dataset("MSR-VTT", "test", **options(world))
    assert list(dataset.records.ids) == ["video0", "video11", "video7"]
    assert list(dataset.records.captions) == ["video0 caption 1", "video11 caption 0", "video7 caption 2"]
    assert dataset.records.path(2) == world / "data/videos/all/video7.mp4"
    assert dataset[2]["text"] == ["video7 caption 2"]


@pytest.mark.parametrize(
    ("cut", "test", "train"),
    [
        ("miech", ["video0"], ["video2"]),
        ("full-val", ["video7"], ["video2"]),
        ("full-test", ["video0", "video11"], ["video2"]),
        ("val", ["video10"], ["video2"]),
        ("public_server_val", ["video7"], ["video2"]),
        ("public_server_test", ["video11"], ["video2"]),
    ],
)
def test_other_cuts_take_the_first_caption(world, cut, test, train):
    dataset = build_dataset("msrvtt", "test", cut=cut, **options(world))
    assert list(dataset.records.ids) == test
    assert list(dataset.records.captions) == [f"{name} caption 0" for name in test]
    assert list(build_dataset("msrvtt", "train", cut=cut, **options(world)).records.ids) == train


def test_training_draws_one_of_all_captions(world):
    dataset = build_dataset("msrvtt", "train", **options(world))
    assert list(dataset.records.ids) == ["video10", "video2"]
    assert dataset.records.caption_video.tolist() == [0, 0, 0, 1, 1, 1]
    seen = {dataset[(epoch, 1)]["text"][0] for epoch in range(20)}
    assert seen == {f"video2 caption {k}" for k in range(3)}


def test_an_unknown_cut_names_those_there_are(world):
    with pytest.raises(ValueError, match=r"no cut '1k-A'; there are jsfusion, miech"):
        build_dataset("msrvtt", "test", cut="1k-A", **options(world))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("data/videos/all", "the videos of MSR-VTT"),
        (f"{LISTS}/val_list_jsfusion.txt", r"val_list_jsfusion\.txt is missing.*'jsfusion'\n.*make it"),
        (f"{LISTS}/jsfusion_val_caption_idx.pkl", "which caption of each video is its query"),
        ("meta_data/msrvtt/MSR_VTT.json", r"MSR_VTT\.json is missing: the annotations"),
    ],
)
def test_what_is_missing_is_named(world, tmp_path, missing, message):
    world = worlds.copy_world(world, tmp_path)
    (world / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=message):
        build_dataset("msrvtt", "test", **options(world))


def test_a_json_of_another_form_is_named(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    worlds.put_json(world / "meta_data/msrvtt/MSR_VTT.json", {"sentences": []})
    with pytest.raises(ValueError, match=r'MSR_VTT\.json needs "annotations", each with "image_id"'):
        build_dataset("msrvtt", "test", **options(world))


def test_lists_and_captions_that_do_not_fit_each_other(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    list_path = world / LISTS / "val_list_jsfusion.txt"
    list_path.write_text("video0\nvideo10\n")
    with pytest.raises(ValueError, match="names no caption of video10, which has 3"):
        build_dataset("msrvtt", "test", **options(world))
    list_path.write_text("video0\nvideo99\n")
    with pytest.raises(ValueError, match=r"1 videos of .*have no caption in .*video99"):
        build_dataset("msrvtt", "test", **options(world))


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": "video0", "caption": None}, r"annotation 1 \(video0\), caption is None, not a text"),
        ({"image_id": "video0", "caption": 5}, "caption is 5, not a text"),
        ({"image_id": "video0", "caption": ""}, "caption is empty"),
        ({"image_id": "video0", "caption": "\ud83d"}, "holds half a character"),
        ({"image_id": 0, "caption": "x"}, "annotation 1, image_id is 0, not a text"),
    ],
)
def test_captions_that_are_no_text_are_named(world, tmp_path, annotation, message):
    world = worlds.copy_world(world, tmp_path)
    annotations = [{"image_id": "video7", "caption": "fine"}, annotation]
    worlds.put_json(world / "meta_data/msrvtt/MSR_VTT.json", {"annotations": annotations})
    with pytest.raises(ValueError, match=rf"MSR_VTT\.json: .*{message}"):
        build_dataset("msrvtt", "test", **options(world))
