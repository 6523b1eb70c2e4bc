"""More sets, each from small files of its official form; the set's own config reads what is written."""

import json
from pathlib import Path

import pytest

from data_loader.prepare.formats import SETS, spoken_part
from data_loader.transforms import clip_transform
from downstream.evaluation import open_dataset
from tests.data_loader.worlds import put_json, put_text, put_video
from utils.config import REPOSITORY, load_config
from utils.schema import EvaluationConfig


def opened(tmp_path: Path, name: str, split: str | None = None):
    """The records of a config of downstream/configs, with lists and videos in `tmp_path`."""
    given = [f"data.root={tmp_path / 'data'}", f"meta={tmp_path / 'meta_data'}", "num_frames=12"]
    config = load_config(EvaluationConfig, REPOSITORY / f"downstream/configs/{name}.json", given)
    return open_dataset(config, clip_transform("test", 32), split).records


MSVD = (
    "# a comment\nvid1_0_4 a cat sits\nvid1_0_4 a cat is sitting\nvid2_3_9 a dog runs\nvid1_0_4 a cat sits\n"
)


def test_msvd(prepare, tmp_path):
    captions = put_text(tmp_path / "AllVideoDescriptions.txt", MSVD)
    test = put_text(tmp_path / "test_list.txt", "vid2_3_9\nvid1_0_4\n")
    put_video(tmp_path / "data/YouTubeClips/vid1_0_4.avi")
    printed = prepare("msvd", captions, "--test", test)
    assert "test: left out: 1 row that come twice" in printed
    assert "test.tsv: 2 videos, 1 missing below" in printed and "3 captions of 2 videos" in printed
    records = opened(tmp_path, "msvd")
    assert list(records.ids) == ["vid2_3_9.mp4", "YouTubeClips/vid1_0_4.avi"]
    assert records[1].captions == ["a cat sits", "a cat is sitting"]
    prepare("msvd", captions, "--test", test, "--drop-missing")
    assert len(opened(tmp_path, "msvd")) == 1
    put_text(tmp_path / "test_list.txt", "vid3\n")
    assert "test_list.txt, line 1: vid3 has no caption" in prepare("msvd", captions, "--test", test, status=1)
    put_text(tmp_path / "AllVideoDescriptions.txt", "vid1\n")
    assert "line 1: 'vid1' is not '<video> <caption>'" in prepare("msvd", captions, "--test", test, status=1)


def test_activitynet_paragraphs(prepare, tmp_path):
    content = {
        "v_b": {
            "duration": 9.5,
            "timestamps": [[0, 4.1], [3, 9]],
            "sentences": ["A man runs. ", " ", " He\nfalls."],
        },
        "v_a": {"duration": 3, "timestamps": [[0, 3]], "sentences": ["Rain."]},
    }
    put_video(tmp_path / "data/v_b.mp4")
    prepare("activitynet", "--test", put_json(tmp_path / "val_1.json", content))
    records = opened(tmp_path, "activitynet")
    assert list(records.captions) == ["A man runs. He falls.", "Rain."]
    assert "v_b has no list of sentences" in prepare(
        "activitynet", "--test", put_json(tmp_path / "x.json", {"v_b": {"sentences": []}}), status=1
    )


def test_activitynet_as_it_is_released(prepare, tmp_path):
    """Timestamps that overlap, whole seconds among them, and ids that begin with a dash behind v_."""
    content = {
        "v_QOlSCBRmfWY": {
            "duration": 82.73,
            "timestamps": [[0.83, 19.86], [17.37, 60.81], [56.26, 79.42]],
            "sentences": [
                "A woman stands in a room.",
                " The girl dances around.",
                " She dances on and stops.",
            ],
        },
        "v_-02DygXbn6w": {"duration": 118, "timestamps": [[0, 118]], "sentences": [' Caf\u00e9 "open".']},
    }
    train = put_json(tmp_path / "train.json", content)
    prepare("activitynet", "--train", train, "--test", put_json(tmp_path / "val_1.json", content))
    assert list(opened(tmp_path, "activitynet").captions) == [
        "A woman stands in a room. The girl dances around. She dances on and stops.",
        'Café "open".',
    ]


def test_vatex_with_a_list_of_test_videos(prepare, tmp_path):
    content = [
        {"videoID": f"-id{i}_000002_000012", "enCap": [f"text {i} {k}" for k in range(10)], "chCap": ["x"]}
        for i in range(3)
    ]
    source = put_json(tmp_path / "vatex_validation_v1.0.json", content)
    names = put_text(tmp_path / "list.txt", "-id2_000002_000012\n-id0_000002_000012\n")
    put_video(tmp_path / "data/-id0_000002_000012.mkv")
    printed = prepare("vatex", "--test", source, "--only", names)
    assert "20 captions of 2 videos" in printed
    records = opened(tmp_path, "vatex")
    assert list(records.ids) == ["-id0_000002_000012.mkv", "-id2_000002_000012.mp4"]
    assert len(records[1].captions) == 10
    put_text(names, "gone\n")
    message = prepare("vatex", "--test", source, "--only", names, status=1)
    assert "list.txt, line 1: gone is in none of the annotation files given" in message


def youcook2(**changes) -> dict:
    parts = [
        {"segment": [2, 5.5], "id": 0, "sentence": "cut the onion"},
        {"segment": [6, 9], "id": 1, "sentence": "fry it"},
        {"segment": [9, 10], "id": 2, "sentence": " "},
    ]
    video = {"duration": 10.0, "subset": "validation", "recipe_type": "212", "annotations": parts} | changes
    return {"database": {"xyz": video, "abc": video | {"subset": "training"}}}


def test_youcook2_writes_pieces_of_videos(prepare, tmp_path):
    put_video(tmp_path / "data/validation/212/xyz.webm")
    printed = prepare("youcook2", put_json(tmp_path / "youcookii.json", youcook2()))
    assert "val.tsv: 1 video, 0 missing" in printed and "2 captions of 1 video" in printed
    assert "val: left out: 1 empty caption, e.g. of xyz" in printed
    lines = (tmp_path / "meta_data/youcook2/val.tsv").read_text().splitlines()
    assert lines == [
        "path\tcaption\tstart\tend",
        "validation/212/xyz.webm\tcut the onion\t2\t5.5",
        "validation/212/xyz.webm\tfry it\t6\t9",
    ]
    records = opened(tmp_path, "youcook2")
    assert list(records.ids) == [f"validation/212/xyz.webm#t={span}" for span in ("2,5.5", "6,9")]
    assert [records[i].span for i in (0, 1)] == [(2, 5.5), (6, 9)]
    assert records.path(1) == tmp_path / "data/validation/212/xyz.webm" and records[1].captions == ["fry it"]
    assert len(opened(tmp_path, "youcook2", "train")) == 2
    bad = put_json(tmp_path / "bad.json", youcook2(annotations=[{"segment": [2], "sentence": "x"}]))
    assert "annotation 0 of abc: the segment [2] is not" in prepare("youcook2", bad, status=1)


@pytest.mark.parametrize("name", ["k600", "k700"])
def test_kinetics(prepare, tmp_path, name):
    head = "label,youtube_id,time_start,time_end,split\n"
    val = put_text(tmp_path / "val.csv", head + "zumba,-0XY,5,15,val\nabseiling,b,73,83,val\n")
    put_video(tmp_path / "data/val/zumba/-0XY_000005_000015.mp4")
    assert "val.tsv: 2 videos, 1 missing" in prepare(name, "--val", val)
    records = opened(tmp_path, name)
    assert (records.class_names, records.labels.tolist()) == (["abseiling", "zumba"], [1, 0])
    assert records.ids[0] == "val/zumba/-0XY_000005_000015.mp4"
    train = put_text(tmp_path / "train.csv", head + "bowling,c,0,10,train\n")
    prepare(name, "--train", train)
    test, train = opened(tmp_path, name), opened(tmp_path, name, "train")
    assert test.class_names == train.class_names == ["abseiling", "bowling", "zumba"]
    assert (test.labels.tolist(), train.labels.tolist()) == ([2, 0], [1])


def test_ssv2_with_its_classes(prepare, tmp_path):
    labels = put_json(tmp_path / "labels.json", {"Pushing something": "1", "Approaching something": "0"})
    records = [
        {"id": str(i), "template": "Pushing [something]" if i else "Approaching [something]"} for i in (7, 0)
    ]
    validation, train = (put_json(tmp_path / f"{name}.json", records) for name in ("validation", "train"))
    put_video(tmp_path / "data/videos/7.webm")
    printed = prepare("ssv2", labels, validation, "--train", train)
    assert printed.count("2 videos, 1 missing") == 2
    for split in (None, "train"):
        found = opened(tmp_path, "ssv2", split)
        assert found.class_names == ["Approaching something", "Pushing something"]
        assert (list(found.ids), found.labels.tolist()) == (["videos/7.webm", "videos/0.webm"], [1, 0])


CHARADES = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    '46GP8,HR43,Kitchen,6,7,Yes,"A person\ncooks.",food,"a; b",'
    "c001 11.90 21.20;c000 0.00 12.60;c001 1 2,24.8\n"
    "N11GT,0KZ7,Stairs,5,7,No,x,bag,y,,18.3\n"
)


def test_charades_with_several_classes_a_video(prepare, tmp_path):
    classes = put_text(
        tmp_path / "Charades_v1_classes.txt", "c000 Holding some clothes\nc001 Eating a sandwich\n"
    )
    test = put_text(tmp_path / "Charades_v1_test.csv", CHARADES)
    put_video(tmp_path / "data/Charades_v1_480/46GP8.mp4")
    printed = prepare("charades", classes, "--test", test)
    assert "test.tsv: 2 videos, 1 missing" in printed
    records = opened(tmp_path, "charades")
    assert records.class_names == ["Holding some clothes", "Eating a sandwich"]
    assert list(records.ids) == ["Charades_v1_480/46GP8.mp4", "N11GT.mp4"]
    assert records.targets.tolist() == [[True, True], [False, False]]
    put_text(test, CHARADES.replace("c001 1 2", "c157 1 2"))
    assert "line 2: the class 'c157' of 46GP8 is none" in prepare(
        "charades", classes, "--test", test, status=1
    )


def test_moments_in_time(prepare, tmp_path):
    categories = put_text(tmp_path / "moments_categories.txt", "clapping,1\nadult+female+singing,0\n")
    rows = "adult+female+singing/yt-a_5.mp4,adult+female+singing,3,1\nclapping/yt-a_5.mp4,clapping,4,0\n"
    val = put_text(tmp_path / "validationSet.csv", rows)
    put_video(tmp_path / "data/validation/clapping/yt-a_5.mp4")
    printed = prepare("moments", categories, "--val", val)
    assert "1 missing" in printed and "e.g. validation/adult+female+singing/yt-a_5.mp4" in printed
    records = opened(tmp_path, "moments")
    assert records.class_names == ["adult female singing", "clapping"]
    assert (records.ids[1], records.labels.tolist()) == ("validation/clapping/yt-a_5.mp4", [0, 1])
    put_text(categories, "clapping\n")
    assert "line 1: 'clapping' is not '<class>,<number>'" in prepare(
        "moments", categories, "--val", val, status=1
    )


def test_diving48(prepare, tmp_path):
    vocab = put_json(
        tmp_path / "vocab.json", [["Back", "15som", "05Twis", "FREE"], ["Forward", "Dive", "NoTwis", "PIKE"]]
    )
    entries = [{"vid_name": "_8Vy_00001", "label": 1, "start_frame": 0, "end_frame": 90}]
    test = put_json(tmp_path / "Diving48_V2_test.json", entries)
    put_video(tmp_path / "data/rgb/_8Vy_00001.mp4")
    prepare("diving48", vocab, "--test", test)
    records = opened(tmp_path, "diving48")
    assert records.class_names == ["back, 1.5 somersaults, 0.5 twists, free", "forward, dive, no twist, pike"]
    assert (list(records.ids), records.labels.tolist()) == (["rgb/_8Vy_00001.mp4"], [1])
    put_json(test, [entries[0] | {"label": 2}])
    assert "entry 0: the label 2 is none of 0 to 1" in prepare("diving48", vocab, "--test", test, status=1)
    assert [spoken_part(part) for part in ("20som", "10Twis")] == ["2 somersaults", "1 twists"]


@pytest.mark.parametrize("name", SETS)
def test_a_list_that_is_not_there_names_the_command(tmp_path, name):
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"is missing(.|\n)*python -m data_loader\.prepare {name} "):
        opened(tmp_path, name)


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["activitynet", "--test"], {"v_a": 1}, "v_a, 1, is no object with sentences"),
        (
            ["vatex", "--test"],
            [{"videoID": "a"}],
            "entry 0, {'videoID': 'a'}, is no object with videoID, enCap",
        ),
        (["youcook2"], {}, "is no object with database"),
        (["youcook2"], {"database": {}}, "train.tsv would be empty"),
        (["k600", "--val"], "a,b", "has no column"),
    ],
)
def test_files_of_another_form_are_named(prepare, tmp_path, arguments, content, message):
    path = put_text(
        tmp_path / "source", content + "\n1,2\n" if isinstance(content, str) else json.dumps(content)
    )
    assert message in prepare(*arguments, path, status=1)
    assert "name an annotation file: --train train.csv, --val val.csv" in prepare("k600", status=1)
