import pytest

from data_loader import build_dataset
from tests.data_loader import worlds
from tests.data_loader.worlds import options

NAMES = ["brush hair", "cartwheel", "wave"]


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_paths_below_the_root_and_labels_from_1(tmp_path, name):
    getattr(worlds, name)(tmp_path)
    dataset = build_dataset(name, "test", **options(tmp_path))
    assert dataset.records.class_names == NAMES
    assert dataset.records.labels.tolist() == [0, 1, 2]
    assert dataset.records.path(2).is_relative_to(tmp_path / "data/class2")
    item = dataset[2]
    assert (item["label"], item["text"]) == (2, ["a person wave"])
    assert len(build_dataset(name, "train", **options(tmp_path))) == 2


def test_training_lists_with_the_clips_of_an_evaluation(tmp_path):
    worlds.hmdb51(tmp_path)
    dataset = build_dataset("HMDB-51", "train", view="test", **options(tmp_path))
    assert len(dataset) == 2
    assert (dataset[(0, 0)]["video"] == dataset[(1, 0)]["video"]).all()


def test_kinetics_counts_from_0_and_reads_mkv_as_mp4(tmp_path):
    worlds.k400(tmp_path)
    dataset = build_dataset("Kinetics-400", "test", **options(tmp_path))
    assert dataset.records.labels.tolist() == [0, 2]
    assert dataset.video_paths == [tmp_path / f"data/videos_val/{name}.mp4" for name in "ab"]
    assert dataset[1]["label"] == 2


def test_a_list_without_header_loses_no_row(tmp_path):
    worlds.hmdb51(tmp_path)
    rows = [["class0/spl0.mp4", 1], ["class1/spl1.mp4", 2]]
    worlds.put_table(tmp_path / "meta_data/hmdb51/prompt/split_1_test_list.tsv", rows, None)
    assert build_dataset("hmdb51", "test", **options(tmp_path)).records.labels.tolist() == [0, 1]


def test_other_folds_are_other_lists(tmp_path):
    worlds.hmdb51(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"split_2_test_list\.tsv is missing"):
        build_dataset("hmdb51", "test", fold=2, **options(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a.mp4", 0]], r"split_1_test_list\.tsv has labels 0 to 0; expected 1 to 3"),
        ([["a.mp4", 1], ["a.mp4", 4]], r"has labels 1 to 4; expected 1 to 3, for the 3 classes"),
        ([["a.mp4", "wave"]], r"line 2: the label 'wave' in column 2 is no number"),
        ([], "is empty: expected videos and labels"),
    ],
)
def test_labels_that_cannot_be_are_named(tmp_path, rows, message):
    worlds.hmdb51(tmp_path)
    path = tmp_path / "meta_data/hmdb51/prompt/split_1_test_list.tsv"
    worlds.put_table(path, rows, ["path", "label"])
    with pytest.raises(ValueError, match=message):
        build_dataset("hmdb51", "test", **options(tmp_path))


def test_a_list_of_one_column_and_classes_of_another_form(tmp_path):
    worlds.hmdb51(tmp_path)
    meta = tmp_path / "meta_data/hmdb51/prompt"
    (meta / "split_1_test_list.tsv").write_text("path\na.mp4\n")
    with pytest.raises(ValueError, match="needs at least 2 columns"):
        build_dataset("hmdb51", "test", **options(tmp_path))
    worlds.put_json(meta / "label2id.json", ["wave"])
    with pytest.raises(ValueError, match=r"label2id\.json must map each class name to its number"):
        build_dataset("hmdb51", "test", **options(tmp_path))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": 0, "b": 0, "c": 1}, "gives the number 0 to both 'a' and 'b'"),
        ({"a": 0, "c": 2, "e": 4}, "names 3 classes, up to number 4, but none numbered 1"),
        ({"a": -1, "b": 0}, "none numbered 1"),
        ({"a": 2, "b": 3}, "none numbered 1"),
        ({"a": 0, "b": "one"}, "'b' has 'one'"),
        ({"a": 0, "b": 1.0}, "'b' has 1.0"),
        ({" ": 0}, "the class numbered 0 is empty"),
        ({}, "must map each class name to its number"),
    ],
)
def test_numbers_of_classes_that_cannot_be_right(tmp_path, classes, message):
    worlds.hmdb51(tmp_path)
    worlds.put_json(tmp_path / "meta_data/hmdb51/prompt/label2id.json", classes)
    with pytest.raises(ValueError, match=rf"label2id\.json:? .*{message}|label2id\.json: {message}"):
        build_dataset("hmdb51", "test", **options(tmp_path))


def test_a_class_named_twice(tmp_path):
    worlds.hmdb51(tmp_path)
    (tmp_path / "meta_data/hmdb51/prompt/label2id.json").write_text('{"a": 0, "b": 1, "a": 2}')
    with pytest.raises(ValueError, match=r"label2id\.json .*the key 'a' twice"):
        build_dataset("hmdb51", "test", **options(tmp_path))


def test_classes_counted_from_1_are_taken_for_the_first_on(tmp_path, caplog):
    worlds.hmdb51(tmp_path)
    classes = {"brush hair": "1", "wave": 3, "cartwheel": 2}
    worlds.put_json(tmp_path / "meta_data/hmdb51/prompt/label2id.json", classes)
    dataset = build_dataset("hmdb51", "test", **options(tmp_path))
    assert (dataset.records.class_names, dataset.records.labels.tolist()) == (NAMES, [0, 1, 2])
    assert "label2id.json counts from 1: 1, 'brush hair', is taken for the first class" in caplog.text


def test_labels_that_could_be_counted_otherwise_are_said_to_be_taken_as_they_are(tmp_path, caplog):
    worlds.hmdb51(tmp_path)
    path = tmp_path / "meta_data/hmdb51/prompt/split_1_test_list.tsv"
    build_dataset("hmdb51", "test", **options(tmp_path))
    assert not caplog.text
    worlds.put_table(path, [["x/a.mp4", 2], ["x/b.mp4", 1]], ["path", "label"])
    assert build_dataset("hmdb51", "test", **options(tmp_path)).records.labels.tolist() == [1, 0]
    assert "its labels, 1 to 2, are taken to count from 1, so that 2 is 'cartwheel'" in caplog.text


def test_a_video_in_the_folder_of_another_class_is_an_error(tmp_path):
    """A list and a label2id.json that do not belong together."""
    worlds.k400(tmp_path)
    meta = tmp_path / "meta_data/k400/prompt"
    worlds.put_json(meta / "label2id.json", {"brush hair": 0, "wave": 1, "cartwheel": 2})
    with pytest.raises(
        ValueError,
        match=r"val_list_videos\.tsv, line 3: wave/b\.mkv has the label 2, 'cartwheel' in label2id",
    ):
        build_dataset("k400", "test", **options(tmp_path))
