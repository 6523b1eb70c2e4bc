"""Anyone's labelled videos: folders and lists, what is left out, what cannot be."""

import json

import pandas as pd
import pytest

from data_loader import build_dataset
from data_loader.own_labels import spelled
from tests.data_loader.worlds import options, put_json, put_table, put_video


def put_folders(tmp_path, *videos: str) -> None:
    for video in videos:
        put_video(tmp_path / "data" / video)


def put_list(tmp_path, *rows, header=("path", "label"), name="list.tsv"):
    (tmp_path / "data").mkdir(exist_ok=True)
    put_table(tmp_path / "meta_data" / name, rows, header)
    return name


def labels(tmp_path, split="test", **more):
    return build_dataset("labels", split, **options(tmp_path, **more)).records


def test_a_folder_a_class(tmp_path):
    put_folders(tmp_path, "brush_hair/a.mp4", "brush_hair/deep/b.MOV", "ApplyMakeup/c.avi", "tai chi/d.webm")
    dataset = build_dataset("labels", "test", **options(tmp_path))
    records = dataset.records
    assert records.class_names == ["apply makeup", "brush hair", "tai chi"]
    assert list(records.ids) == [
        "ApplyMakeup/c.avi",
        "brush_hair/a.mp4",
        "brush_hair/deep/b.MOV",
        "tai chi/d.webm",
    ]
    assert records.labels.tolist() == [0, 1, 1, 2]
    item = dataset[2]
    assert (item["label"], item["text"], item["valid_frames"]) == (1, ["a person brush hair"], 12)


def test_what_is_left_out_of_a_folder_is_said(tmp_path, caplog):
    put_folders(tmp_path, "a/1.mp4", "b/2.mp4", "loose.mp4")
    (tmp_path / "data/empty").mkdir()
    (tmp_path / "data/a/notes.txt").touch()
    assert len(labels(tmp_path)) == 2
    for said in ("1 folder without videos, e.g. empty", "1 video in no class, e.g. loose.mp4", "a/notes.txt"):
        assert said in caplog.text


def test_folders_of_splits_share_the_numbers_of_classes(tmp_path):
    put_folders(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "train/c/3.mp4", "val/c/4.mp4", "val/b/5.mp4")
    train, test = labels(tmp_path, "train"), labels(tmp_path)
    assert train.class_names == test.class_names == ["a", "b", "c"]
    assert train.labels.tolist() == [0, 1, 2]
    assert (list(test.ids), test.labels.tolist()) == (["val/b/5.mp4", "val/c/4.mp4"], [1, 2])
    put_folders(tmp_path, "test/a/6.mp4")
    assert list(labels(tmp_path).ids) == ["test/a/6.mp4"]
    assert len(labels(tmp_path, "val")) == 2


@pytest.mark.parametrize(
    ("videos", "split", "message"),
    [
        ([], "test", "holds no videos of classes: put them into a folder a class"),
        (["loose.mp4"], "test", "holds no videos of classes"),
        (["a/1.mp4"], "test", "there is one class alone, 'a'"),
        (["train/a/1.mp4", "train/b/1.mp4"], "test", "no folder of videos test/<class>/, only train"),
        (
            ["brush_hair/1.mp4", "BrushHair/1.mp4", "c/2.mp4"],
            "test",
            "'brush_hair' the class 'BrushHair' of",
        ),
    ],
)
def test_folders_that_cannot_be(tmp_path, videos, split, message):
    (tmp_path / "data").mkdir()
    put_folders(tmp_path, *videos)
    with pytest.raises(ValueError, match=message):
        labels(tmp_path, split)


def test_a_list_of_names_is_taken_as_it_is_written(tmp_path):
    file = put_list(tmp_path, ["x/1.mp4", "Wave_Hand"], ["2.mp4", "brush hair"], ["3.mp4", "Wave_Hand"])
    records = labels(tmp_path, files=file)
    assert records.class_names == ["Wave_Hand", "brush hair"]
    assert records.labels.tolist() == [0, 1, 0]
    assert records.path(0) == tmp_path / "data/x/1.mp4"


def test_other_columns_and_lists_of_splits(tmp_path):
    test = put_list(tmp_path, ["b", 0, "1"], ["a", 0, "2"], header=("class", "x", "video"), name="test.tsv")
    train = put_list(tmp_path, ["c", 0, "3"], header=("class", "x", "video"), name="train.tsv")
    more = {"path_column": "video", "label_column": 0, "suffix": ".mp4"}
    records = labels(tmp_path, files={"test": test, "train": train}, **more)
    assert (records.class_names, records.labels.tolist()) == (["a", "b", "c"], [1, 0])
    assert records.path(1) == tmp_path / "data/2.mp4"
    with pytest.raises(ValueError, match=r"labels: no list for the split 'val', only for"):
        labels(tmp_path, "val", files={"test": test, "train": train}, **more)


def test_numbers_with_and_without_names(tmp_path):
    file = put_list(tmp_path, ["1.mp4", 10], ["2.mp4", 9], ["3.mp4", 10])
    records = labels(tmp_path, files=file)
    assert (records.class_names, records.labels.tolist()) == (["9", "10"], [1, 0, 1])
    (tmp_path / "meta_data/classes.txt").write_text("".join(f"class {i}\n" for i in range(11)))
    records = labels(tmp_path, files=file, classes="classes.txt")
    assert (len(records.class_names), records.labels.tolist()) == (11, [10, 9, 10])
    put_json(tmp_path / "meta_data/classes.json", {"wave": 1, "brush hair": 0})
    with pytest.raises(ValueError, match=r"list\.tsv, line 2: the label '10' is none of the 2 cl.* 0 to 1"):
        labels(tmp_path, files=file, classes="classes.json")


def test_names_among_those_of_a_file(tmp_path):
    file = put_list(tmp_path, ["1.mp4", "WaveHand"], ["2.mp4", "brush_hair"])
    (tmp_path / "meta_data/classes.txt").write_text("brush hair\ncartwheel\nwave hand\n")
    records = labels(tmp_path, files=file, classes="classes.txt")
    assert (records.class_names, records.labels.tolist()) == (
        ["brush hair", "cartwheel", "wave hand"],
        [2, 0],
    )
    put_list(tmp_path, ["1.mp4", "wave hands"])
    with pytest.raises(ValueError, match=r"line 2: the label 'wave hands' .* did you mean 'wave hand'"):
        labels(tmp_path, files=file, classes="classes.txt")
    (tmp_path / "meta_data/classes.txt").write_text("wave\nWave\n")
    with pytest.raises(ValueError, match=r"classes\.txt has the class 'Wave' twice"):
        labels(tmp_path, files=file, classes="classes.txt")


def test_several_labels_a_video(tmp_path):
    rows = [["1.mp4", "sit"], ["2.mp4", "run"], ["1.mp4", "eat"], ["3.mp4", ""], ["2.mp4", "run"]]
    file = put_list(tmp_path, *rows)
    with pytest.raises(ValueError, match="the cell in column 2 is empty"):
        labels(tmp_path, files=file)
    records = labels(tmp_path, files=file, multi_label=True)
    assert records.class_names == ["eat", "run", "sit"]
    assert list(records.ids) == ["1.mp4", "2.mp4", "3.mp4"]
    assert records.targets.tolist() == [[True, False, True], [False, True, False], [False] * 3]
    assert records[0].captions == ["a person eat", "a person sit"] and records[0].label is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [["1.mp4", "a"], ["1.mp4", "b"]],
            r"line 3: 1\.mp4 is in the list already, .* line 2; if .*multi_label",
        ),
        ([["1.mp4", "wave"], ["2.mp4", "Wave"]], r"line 3: is 'Wave' the class 'wave' of .*, line 2\?"),
        ([["1.mp4", "1"], ["2.mp4", "01"]], "line 3: is '01' the class '1'"),
        ([["1.mp4", "a"]], "there is one class alone, 'a'"),
        ([["1.mp4", ""], ["2.mp4", "a"]], "line 2: the cell in column 2 is empty"),
    ],
)
def test_lists_that_cannot_be(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        labels(tmp_path, files=put_list(tmp_path, *rows))


def test_names_of_folders_as_texts():
    names = ["brush_hair", "BrushHair", "brush hair", "TaiChi", "TV on", "_", "HTMLPage"]
    assert [spelled(name) for name in names] == [
        "brush hair", "brush hair", "brush hair", "tai chi", "TV on", "_", "htmlpage",
    ]  # fmt: skip


def test_spans_that_differ_by_little_stay_apart(tmp_path):
    """Six digits do not tell them apart."""
    rows = [["a.mp4", "run", "12345.61", "12350"], ["a.mp4", "sit", "12345.64", "12350"]]
    file = put_list(tmp_path, *rows, header=("path", "label", "start", "end"))
    put_folders(tmp_path, "a.mp4")
    records = build_dataset("labels", "test", **options(tmp_path, files=file)).records
    assert [records.span(i).start for i in range(len(records))] == [12345.61, 12345.64]


def test_spans_of_videos(tmp_path):
    rows = [["a.mp4", "run", "0.2", "00:00:00.6"], ["a.mp4", "sit", "0.6", ""], ["b#t=1.mp4", "run", "", ""]]
    file = put_list(tmp_path, *rows, header=("path", "label", "start", "end"))
    put_folders(tmp_path, "a.mp4", "b#t=1.mp4")
    dataset = build_dataset("labels", "test", **options(tmp_path, files=file))
    records = dataset.records
    assert list(records.ids) == ["a.mp4#t=0.2,0.6", "a.mp4#t=0.6,inf", "b#t=1.mp4#t=0,inf"]
    assert [records.path(i).name for i in range(3)] == ["a.mp4", "a.mp4", "b#t=1.mp4"]
    assert [records[i].span for i in range(2)] == [(0.2, 0.6), (0.6, float("inf"))]
    assert (dataset[0]["video"][0] != dataset[1]["video"][0]).any()
    put_list(tmp_path, *rows[:2], rows[0], header=("path", "label", "start", "end"))
    with pytest.raises(ValueError, match=r"line 4: a\.mp4#t=0\.2,0\.6 is in the list already"):
        labels(tmp_path, files=file)
    put_list(tmp_path, ["a.mp4", "run", "3", "2"], header=("path", "label", "start", "end"))
    with pytest.raises(ValueError, match="line 2: the span 3 s to 2 s does not end after its start"):
        labels(tmp_path, files=file)


ROWS = [
    {"path": "1.mp4", "label": ["sit", "eat"], "start": 0.0},
    {"path": "2.mp4", "label": [], "start": 0.5},
    {"path": "3.mp4", "label": ["run"], "start": None},
]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_lists_in_other_forms(tmp_path, form):
    (tmp_path / "data").mkdir()
    (tmp_path / "meta_data").mkdir()
    file = tmp_path / f"meta_data/list.{form}"

    def put(rows):
        if form == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pd.DataFrame(rows).to_parquet(file)

    put(ROWS)
    records = labels(tmp_path, files=file.name, multi_label=True)
    assert records.class_names == ["eat", "run", "sit"]
    assert records.targets.tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert [records.span(i).start for i in range(3)] == [0, 0.5, 0]
    with pytest.raises(ValueError, match=r"(line|row) 2: 'label' is \[\]; a text, or a list of texts, is"):
        labels(tmp_path, files=file.name)
    put([{"path": f"{i}.mp4", "label": i % 2, "caption": f"text {i}"} for i in range(3)])
    assert labels(tmp_path, files=file.name, label_column=1).labels.tolist() == [0, 1, 0]
    captions = build_dataset("csv", "test", **options(tmp_path, files=file.name)).records
    assert list(captions.captions) == ["text 0", "text 1", "text 2"]
    with pytest.raises(ValueError, match="needs at least 6 columns"):
        labels(tmp_path, files=file.name, label_column=5)
    with pytest.raises(ValueError, match="has no column 'class'; its columns are"):
        labels(tmp_path, files=file.name, label_column="class")
    put([{"path": "1.mp4", "label": 1.5}, {"path": "2.mp4", "label": 2.0}])
    with pytest.raises(ValueError, match=r"(line|row) 1: 'label' is 1\.5"):
        labels(tmp_path, files=file.name)
