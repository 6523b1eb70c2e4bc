import numpy as np
import pytest

from data_loader import build_dataset
from data_loader.sampling import sample_frames
from data_loader.transforms import clip_transform
from data_loader.video import VideoReadError, read_frames
from tests.data_loader import worlds
from tests.data_loader.worlds import SIZE, options


@pytest.fixture(scope="module")
def webvid(tmp_path_factory):
    return worlds.webvid(tmp_path_factory.mktemp("webvid"))


def test_webvid_layout(webvid):
    dataset = build_dataset("WebVid", "train", **options(webvid))
    assert len(dataset) == 8
    assert dataset.records.path(3) == webvid / "data/train/001/3.mp4"
    assert dataset.records.id(3) == "001/3"
    assert dataset.records.captions[3] == 'train caption 3, "quoted"'
    item = dataset[3]
    assert item["video"].shape == (12, 3, SIZE, SIZE)
    assert item["text"] == ['train caption 3, "quoted"']
    assert (item["index"], item["id"], item["valid_frames"], item["failures"]) == (3, "001/3", 12, [])
    assert "keep_ind" not in item
    val = build_dataset("webvid", "val", **options(webvid))
    assert val.records.path(0) == webvid / "data/val/000/0.mp4"


def test_webvid_validates_on_the_same_thousand_rows(tmp_path):
    worlds.webvid(tmp_path)
    rows = [[f"caption {i}", f"{i}"] for i in range(1500)]
    worlds.put_table(tmp_path / "meta_data/webvid_val.tsv", rows, ["caption", "path"])
    first, again = (build_dataset("webvid", "val", **options(tmp_path)) for _ in range(2))
    assert len(first) == len(set(first.records.ids)) == 1000
    assert list(first.records.ids) == list(again.records.ids) != sorted(first.records.ids)
    # pandas' rows for random_state 0, as in the official release
    expected = np.random.RandomState(0).choice(1500, 1000, replace=False)
    assert [int(name) for name in first.records.ids] == expected.tolist()


def test_the_clip_of_an_evaluation_is_uniform_and_centred(webvid):
    dataset = build_dataset("webvid", "test", mask_ratio=0.5, num_patches=4, **options(webvid))
    item = dataset[1]
    path = dataset.records.path(1)
    frames, _, vlen = read_frames(path, lambda video: sample_frames(12, len(video)))
    assert vlen == 21
    assert (item["video"] == clip_transform("test", SIZE)(frames)).all()
    assert "keep_ind" not in item


def test_didemo_layout(tmp_path):
    worlds.didemo(tmp_path)
    dataset = build_dataset("DiDeMo", "test", **options(tmp_path))
    assert dataset.video_paths == [tmp_path / f"data/test/{i}.mp4" for i in range(3)]
    assert list(dataset.records.captions) == [f"test {i}. Then more." for i in range(3)]
    assert dataset.records.caption_video.tolist() == [0, 1, 2]
    assert dataset[2]["video"].shape[0] == 12
    assert build_dataset("didemo", "train", **options(tmp_path))[0]["text"] == ["train 0. Then more."]


@pytest.mark.parametrize("header", [True, False])
def test_lsmdc_loses_no_row_with_or_without_a_header(tmp_path, header):
    worlds.lsmdc(tmp_path, header)
    dataset = build_dataset("lsmdc", "test", **options(tmp_path))
    assert list(dataset.records.ids) == worlds.CLIPS
    assert list(dataset.records.captions) == ["SOMEONE does 0.", "SOMEONE does 1."]
    assert dataset.records.path(0) == tmp_path / "data/1001_Flight" / f"{worlds.CLIPS[0]}.avi"
    assert dataset.records.path(1).parent.name == "3009_BATTLE_LA"
    assert dataset[1]["valid_frames"] == 12


def test_lsmdc_has_no_training_list(tmp_path):
    worlds.lsmdc(tmp_path)
    with pytest.raises(ValueError, match=r"no list for the split 'train', only for \['test', 'val'\]"):
        build_dataset("lsmdc", "train", **options(tmp_path))


@pytest.fixture(scope="module")
def csv_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    (folder / "meta_data").mkdir()
    (folder / "meta_data/list.csv").write_text('file,words\nb,"b, first"\na,a only\nb,b second\n')
    for name in "ab":
        worlds.put_video(folder / f"data/{name}.mp4")
    return folder


def test_a_csv_needs_only_column_names(csv_world):
    columns = {"files": "list.csv", "path_column": "file", "caption_column": "words", "suffix": ".mp4"}
    dataset = build_dataset("csv", "test", **columns, **options(csv_world))
    assert list(dataset.records.ids) == ["b", "a"]
    assert list(dataset.records.captions) == ["b, first", "b second", "a only"]
    assert dataset.records.caption_video.tolist() == [0, 0, 1]
    assert dataset[0]["text"] == ["b, first"]
    train = build_dataset("csv", "train", **columns, **options(csv_world))
    seen = {train[(epoch, 0)]["text"][0] for epoch in range(8)}
    assert seen == {"b, first", "b second"}


def test_a_csv_with_a_wrong_column_or_no_list_for_the_split(csv_world):
    with pytest.raises(
        ValueError, match=r"list\.csv has no column 'path'; its columns are \['file', 'words'\]"
    ):
        build_dataset("csv", "test", files="list.csv", **options(csv_world))
    with pytest.raises(ValueError, match="no list for the split 'val'"):
        build_dataset("csv", "val", files={"train": "list.csv"}, **options(csv_world))


def test_an_empty_list_is_named(webvid, tmp_path):
    world = worlds.copy_world(webvid, tmp_path)
    worlds.put_table(world / "meta_data/webvid_train.tsv", [], ["caption", "path"])
    with pytest.raises(ValueError, match=r"webvid_train\.tsv is empty: expected captions"):
        build_dataset("webvid", "train", **options(world))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("data", r"the folder .*data is missing: the data of webvid"),
        ("data/train", r"the folder .*train is missing: the train videos of WebVid"),
        ("meta_data", r"webvid_train\.tsv is missing.*\n.*python -m data_loader\.prepare webvid"),
    ],
)
def test_what_is_missing_is_named(webvid, tmp_path, missing, message):
    world = worlds.copy_world(webvid, tmp_path)
    (world / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=message):
        build_dataset("webvid", "train", **options(world))


def test_evaluation_names_an_unreadable_video_or_notes_it_when_allowed(webvid, tmp_path):
    world = worlds.copy_world(webvid, tmp_path)
    broken = worlds.break_file(world / "data/val/001/1.mp4")
    with pytest.raises(VideoReadError) as caught:
        build_dataset("webvid", "test", **options(world))[1]
    assert caught.value.path == str(broken)
    item = build_dataset("webvid", "test", allow_missing=True, **options(world))[1]
    assert item.keys() == {"index", "id", "missing"}
    assert item["missing"].path == str(broken) and str(broken) not in item["missing"].reason


def test_each_row_of_webvid_is_a_sample_with_its_caption(webvid, tmp_path):
    world = worlds.copy_world(webvid, tmp_path)
    rows = [("zero", "000/0"), ("one", "001/1"), ("one again", "001/1"), ("two", "000/2"), ("last", "001/1")]
    worlds.put_table(world / "meta_data/webvid_train.tsv", rows, ["caption", "path"])
    dataset = build_dataset("webvid", "train", **options(world))
    seen = [(dataset[i]["text"], dataset[i]["id"]) for i in range(len(dataset))]
    assert seen == [([caption], path) for caption, path in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a ring\tv0.mp4\n"look, a ball\tv1.mp4\n"a square" moves\tv2.mp4\n', "line 3: a cell holds a tab"),
        ("a ring\tv0.mp4\t\n", "line 2: 3 cells, where the first row has 2"),
        ("a ring\tv0.mp4\na ball\n", "line 3: 1 cell, where the first row has 2"),
        ("a ring\t\n", "line 2: the cell in column 2 is empty"),
        ("\tv0.mp4\n", "line 2: the cell in column 1 is empty"),
    ],
)
def test_rows_that_would_get_another_caption_are_named(tmp_path, content, message):
    worlds.didemo(tmp_path)
    (tmp_path / "meta_data/didemo/DiDeMo_test.tsv").write_text("caption\tpath\n" + content)
    with pytest.raises(ValueError, match=rf"DiDeMo_test\.tsv, {message}"):
        build_dataset("didemo", "test", **options(tmp_path))


def test_commas_in_captions_must_be_quoted(csv_world, tmp_path):
    world = worlds.copy_world(csv_world, tmp_path)
    path = world / "meta_data/list.csv"
    path.write_text('caption,path\n"a ring, then a ball",a.mp4\na cross,b.mp4\n')
    dataset = build_dataset("csv", "test", files="list.csv", **options(world))
    assert list(dataset.records.captions) == ["a ring, then a ball", "a cross"]
    path.write_text("caption,path\na ring, then a ball,a.mp4\n")
    with pytest.raises(ValueError, match=r"list\.csv, line 2: 3 cells.*a comma too many.*must be quoted"):
        build_dataset("csv", "test", files="list.csv", **options(world))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"{worlds.CLIPS[0]}\t1\t2\tone\t\n", "line 1: the cell in column 5 is empty"),
        (
            f"{worlds.CLIPS[0]}\t1\t2\tone\n{worlds.CLIPS[1]}\ttwo\n",
            "line 2: 2 cells, where the first row has 4",
        ),
        ("film.avi\tone\n", "line 1: the clip 'film.avi' is not <film>_<start>-<end>"),
    ],
)
def test_rows_of_lsmdc_that_cannot_be_right_are_named(tmp_path, rows, message):
    worlds.lsmdc(tmp_path)
    path = tmp_path / "meta_data/lsmdc/LSMDC16_challenge_1000_publictect.csv"
    path.write_text(rows)
    with pytest.raises(ValueError, match=rf"publictect\.csv, {message}"):
        build_dataset("lsmdc", "test", **options(tmp_path))
