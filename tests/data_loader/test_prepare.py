"""Each builder on small files of the official form; what it writes is read back by the data set itself."""

import gzip
import json

import pytest

from data_loader import build_dataset
from data_loader.prepare.common import Folder
from data_loader.prepare.labels import spoken
from tests.data_loader import worlds
from tests.data_loader.worlds import CLIPS, options, put_json, put_text, put_video


def test_hmdb51(prepare, tmp_path):
    splits = tmp_path / "testTrainMulti_7030_splits"
    put_text(splits / "brush_hair_test_split1.txt", "a.avi 1\nb.avi 2 \nc.avi 0\n")
    put_text(splits / "wave_test_split1.txt", "d.avi 2 \ne.avi 1\n")
    put_video(tmp_path / "data/brush_hair/b.avi")
    printed = prepare("hmdb51", splits)
    assert "split_1_test_list.tsv: 2 videos, 1 missing below" in printed
    assert "e.g. wave/d.avi" in printed
    assert "our inference" in printed
    test = build_dataset("hmdb51", "test", **options(tmp_path))
    assert test.records.class_names == ["brush hair", "wave"]
    assert list(test.records.ids) == ["brush_hair/b.avi", "wave/d.avi"]
    assert test.records.labels.tolist() == [0, 1]
    assert list(build_dataset("hmdb51", "train", **options(tmp_path)).records.ids) == [
        "brush_hair/a.avi",
        "wave/e.avi",
    ]
    assert test[0]["label"] == 0


def test_ucf101(prepare, tmp_path):
    splits = tmp_path / "ucfTrainTestlist"
    put_text(splits / "classInd.txt", "1 ApplyEyeMakeup\n2 YoYo\n")
    put_text(splits / "testlist01.txt", "YoYo/v_YoYo_g01_c01.avi\nApplyEyeMakeup/v_a.avi\n")
    put_text(splits / "trainlist01.txt", "ApplyEyeMakeup/v_b.avi 1\n")
    printed = prepare("ucf101", splits)
    assert "testlist01_new.tsv: 2 videos, 2 missing" in printed
    test = build_dataset("ucf101", "test", **options(tmp_path))
    assert test.records.class_names == ["apply eye makeup", "yo yo"]
    assert test.records.labels.tolist() == [1, 0]
    assert test.records.ids[0] == "YoYo/v_YoYo_g01_c01.avi"
    assert len(build_dataset("ucf101", "train", **options(tmp_path))) == 1


def test_split_lists_of_another_form_are_named(prepare, tmp_path):
    put_text(tmp_path / "hmdb/wave_test_split1.txt", "a.avi test\n")
    assert "'a.avi test' is not '<video> <0, 1 or 2>'" in prepare("hmdb51", tmp_path / "hmdb", status=1)
    put_text(tmp_path / "empty/readme.txt", "")
    assert "holds no <class>_test_split<n>.txt" in prepare("hmdb51", tmp_path / "empty", status=1)
    put_text(tmp_path / "ucf/classInd.txt", "1 YoYo\n")
    put_text(tmp_path / "ucf/testlist01.txt", "TaiChi/v.avi\n")
    assert "the class of TaiChi/v.avi is not in classInd.txt" in prepare("ucf101", tmp_path / "ucf", status=1)


def test_ucf101_class_names():
    assert [spoken(n) for n in ("TaiChi", "HandstandPushups")] == ["tai chi", "handstand pushups"]


def test_k400(prepare, tmp_path):
    rows = "label,youtube_id,time_start,time_end,split\nwashing feet,-0XY,5,15,val\nabseiling,b,73,83,val\n"
    put_video(tmp_path / "data/videos_val/-0XY_000005_000015.mp4")
    val = put_text(tmp_path / "val.csv", rows)
    assert "2 videos, 1 missing" in prepare("k400", "--val", val)
    test = build_dataset("k400", "test", **options(tmp_path))
    assert test.records.class_names == ["abseiling", "washing feet"]
    assert test.records.labels.tolist() == [1, 0]
    assert test[0]["text"] == ["a person washing feet"]
    prepare("k400", "--val", val, "--drop-missing")
    assert len(build_dataset("k400", "test", **options(tmp_path))) == 1


def test_ssv2(prepare, tmp_path):
    labels = put_json(tmp_path / "labels.json", {"Pushing something": "1", "Approaching something": "0"})
    records = [
        {"id": "7", "label": "pushing a box", "template": "Pushing [something]", "placeholders": ["a box"]},
        {"id": "8", "label": "approaching a door", "template": "Approaching [something]"},
    ]
    validation = put_json(tmp_path / "validation.json", records)
    put_video(tmp_path / "data/videos/8.mp4")
    put_video(tmp_path / "data/videos/7.webm")
    printed = prepare("ssv2", labels, validation)
    assert "2 videos, 0 missing" in printed
    assert "our inference" in printed
    dataset = build_dataset("ssv2", "test", **options(tmp_path))
    assert [dataset.records.options(i) for i in range(2)] == [
        ["Approaching something", "Pushing something"]
    ] * 2
    assert dataset.records.answers.tolist() == [1, 0]
    assert list(dataset.records.ids) == ["7.webm", "8.mp4"]


CHALLENGE = {
    "videos": [
        {"video_id": "video0", "split": "train"},
        {"video_id": "video1", "split": "validate"},
        {"video_id": "video2", "split": "test"},
    ],
    "sentences": [
        {"video_id": f"video{i}", "caption": f"video {i} text {k}"} for k in range(3) for i in range(3)
    ],
}
TEST_CSV = (
    "key,vid_key,video_id,sentence\nret0,msr2,video2,video 2  text 1\nret1,msr1,video1,an own sentence\n"
)


def test_msrvtt_from_json_and_csv(prepare, tmp_path):
    put_video(tmp_path / "data/videos/all/video2.mp4")
    source = put_json(tmp_path / "MSRVTT_data.json", CHALLENGE)
    test_csv = put_text(tmp_path / "MSRVTT_JSFUSION_test.csv", TEST_CSV)
    printed = prepare("msrvtt", "--json", source, "--test-csv", test_csv)
    assert "val_list_jsfusion.txt: 2 videos, 1 missing" in printed
    test = build_dataset("msrvtt", "test", **options(tmp_path))
    assert list(test.records.ids) == ["video1", "video2"]
    assert list(test.records.captions) == ["an own sentence", "video 2 text 1"]
    assert list(build_dataset("msrvtt", "train", **options(tmp_path)).records.ids) == ["video0"]
    full = build_dataset("msrvtt", "test", cut="full-test", **options(tmp_path))
    assert list(full.records.captions) == ["video 2 text 0"]
    assert list(build_dataset("msrvtt", "test", cut="full-val", **options(tmp_path)).records.ids) == [
        "video1"
    ]


def test_msrvtt_from_the_csv_alone(prepare, tmp_path):
    put_video(tmp_path / "data/videos/all/video2.mp4")
    prepare("msrvtt", "--test-csv", put_text(tmp_path / "test.csv", TEST_CSV))
    test = build_dataset("msrvtt", "test", **options(tmp_path))
    assert list(test.records.captions) == ["an own sentence", "video 2  text 1"]


def test_didemo_joins_the_descriptions_of_a_video(prepare, tmp_path):
    records = [
        {"video": "x@N00_1_2.mov", "description": "first thing. "},
        {"video": "gone@N00.avi", "description": "alone"},
        {"video": "x@N00_1_2.mov", "description": "second thing"},
    ]
    put_video(tmp_path / "data/videos/x@N00_1_2.mp4")
    printed = prepare("didemo", "--test", put_json(tmp_path / "test_data.json", records))
    assert "2 videos, 1 missing" in printed
    test = build_dataset("didemo", "test", **options(tmp_path))
    assert list(test.records.ids) == ["videos/x@N00_1_2.mp4", "gone@N00.avi"]
    assert list(test.records.captions) == ["first thing. second thing", "alone"]
    assert test[0]["valid_frames"] == 12


@pytest.mark.parametrize("header", ["", "id\tstart\tend\tcaption\n"])
def test_lsmdc(prepare, tmp_path, header):
    rows = "".join(f"{clip}\t0\t1\tSOMEONE does {i}.\n" for i, clip in enumerate(CLIPS))
    source = put_text(tmp_path / "LSMDC16_challenge_1000_publictect.csv", header + rows)
    put_video(tmp_path / f"data/1001_Flight/{CLIPS[0]}.avi")
    assert "2 videos, 1 missing" in prepare("lsmdc", source)
    test = build_dataset("lsmdc", "test", **options(tmp_path))
    assert list(test.records.ids) == CLIPS
    assert list(test.records.captions) == ["SOMEONE does 0.", "SOMEONE does 1."]


def test_webvid(prepare, tmp_path):
    rows = 'videoid,contentUrl,duration,page_dir,name\n21,http,PT5S,000001_000050,"A, b"\n22,http,PT5S,p2,c\n'
    put_video(tmp_path / "data/train/000001_000050/21.mp4")
    source = put_text(tmp_path / "results_2M_train.csv", rows)
    assert "2 videos, 1 missing" in prepare("webvid", "--train", source)
    assert list(build_dataset("webvid", "train", **options(tmp_path)).records.ids) == [
        "000001_000050/21",
        "p2/22",
    ]
    prepare("webvid", "--train", source, "--drop-missing")
    [item] = list(build_dataset("webvid", "train", **options(tmp_path)))
    assert item["text"] == ["A, b"]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_yttemporal(prepare, tmp_path, suffix):
    records = [
        {**worlds.transcript(["one", "two"], 20), "info": {"display_id": f"id{i}", "duration": 20}}
        for i in range(3)
    ]
    lines = "\n".join(json.dumps(record) for record in [*records, {"subtitles": []}]).encode()
    source = tmp_path / f"yt.{suffix}"
    source.write_bytes(gzip.compress(lines) if suffix.endswith("gz") else lines)
    for i in range(2):
        put_video(tmp_path / f"data/videos/subset_87/data/id{i}.mp4")
    printed = prepare("yttemporal", f"subset_87={source}", "--val-share", "0")
    assert "left out: 1 line without a video id" in printed
    assert "yttemporal_train.csv: 3 videos, 1 missing" in printed
    train = build_dataset("yttemporal", "train", **options(tmp_path))
    assert list(train.records.ids) == [f"subset_87/data/id{i}.mp4" for i in range(3)]
    assert len(train[0]["text"]) == 4
    prepare("yttemporal", f"subset_87={source}", "--val-share", "1", "--drop-missing")
    assert len(build_dataset("yttemporal", "val", **options(tmp_path))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hmdb51", "/nowhere"], "the folder /nowhere is missing: the split lists of HMDB-51"),
        (["ucf101", "/nowhere"], r"/nowhere/classInd.txt is missing"),
        (["k400"], "name one of the csv files of Kinetics-400"),
        (["webvid"], "name an annotation file: --train, --val"),
        (["msrvtt"], "name --json, --test-csv or both"),
        (["yttemporal", "file.jsonl"], "names no subset; write e.g. subset_87=file.jsonl"),
        (["didemo", "--test", "/nowhere.json"], "/nowhere.json is missing"),
    ],
)
def test_what_is_missing_is_named(prepare, arguments, message):
    assert message in prepare(*arguments, status=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("k400 --val", "a,b\n1,2\n", "has no column 'label'"),
        ("webvid --train", "a,b\n1,2\n", "has no column 'name'"),
        ("didemo --test", '["x"]', 'must be a list of {"video", "description"'),
        ("msrvtt --json", '{"annotations": []}', 'must hold "videos" with "video_id"'),
        ("yttemporal", "{", "line 1 is not JSON"),
    ],
)
def test_files_of_another_form_are_named(prepare, tmp_path, name, content, message):
    path = put_text(tmp_path / "source", content)
    command, *option = name.split()
    argument = [*option, path] if option else [f"subset_1={path}"]
    assert message in prepare(command, *argument, status=1)


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    put_text(tmp_path / "a/b.mp4", "")
    folder = Folder(tmp_path)
    assert folder.has("a/b.mp4")
    monkeypatch.setattr("os.listdir", None)
    assert not folder.has("a/c.mp4")


def test_k400_in_two_calls_never_leaves_a_list_with_the_numbers_of_other_classes(prepare, tmp_path):
    head = "label,youtube_id,time_start,time_end,split\n"
    val = put_text(tmp_path / "val.csv", head + "abseiling,a,0,10,val\nzumba,b,1,11,val\n")
    train = put_text(tmp_path / "train.csv", head + "abseiling,c,0,10,train\nbowling,d,0,10,train\n")
    prepare("k400", "--val", val)
    message = prepare("k400", "--train", train, status=1)
    assert "kinetics400_val_list_videos.tsv in" in message
    assert "name both, --train and --val, in one call" in message
    (tmp_path / "data/videos_val").mkdir()
    assert build_dataset("k400", "test", **options(tmp_path)).records.class_names == ["abseiling", "zumba"]
    prepare("k400", "--val", val, "--train", train)
    prepare("k400", "--val", val)  # whose classes are among those numbered before
    test, train = (build_dataset("k400", split, **options(tmp_path)) for split in ("test", "train"))
    assert test.records.class_names == train.records.class_names == ["abseiling", "bowling", "zumba"]
    assert (test.records.labels.tolist(), train.records.labels.tolist()) == ([0, 2], [0, 1])


def test_hmdb51_numbers_of_other_lists_are_kept(prepare, tmp_path):
    put_text(tmp_path / "first/wave_test_split1.txt", "a.avi 1\nb.avi 2\n")
    put_text(tmp_path / "second/brush_hair_test_split2.txt", "a.avi 1\nb.avi 2\n")
    prepare("hmdb51", tmp_path / "first")
    assert "take one folder of all split lists" in prepare("hmdb51", tmp_path / "second", status=1)


def test_times_of_kinetics_that_are_none(prepare, tmp_path):
    rows = "label,youtube_id,time_start,time_end\nabseiling,b,73.0,83.0\nabseiling,c,x,5\n"
    message = prepare("k400", "--val", put_text(tmp_path / "val.csv", rows), status=1)
    assert "val.csv, line 3: time_start and time_end, 'x' and '5', are not seconds" in message


def test_names_of_classes_and_videos_may_hold_spaces(prepare, tmp_path):
    splits = tmp_path / "ucfTrainTestlist"
    put_text(splits / "classInd.txt", "1 Apply Eye Makeup\n2 YoYo\n")
    put_text(splits / "trainlist01.txt", "Apply Eye Makeup/v a.avi 1\nYoYo/b.avi 2\n")
    prepare("ucf101", splits)
    train = build_dataset("ucf101", "train", **options(tmp_path))
    assert (train.records.class_names, list(train.records.ids)) == (
        ["apply eye makeup", "yo yo"],
        ["Apply Eye Makeup/v a.avi", "YoYo/b.avi"],
    )
    put_text(splits / "classInd.txt", "1 YoYo\n1 TaiChi\n")
    assert "classInd.txt, line 2: 1 is YoYo's" in prepare("ucf101", splits, status=1)
    put_text(splits / "classInd.txt", "YoYo\n")
    assert "line 1: 'YoYo' is not '<number> <class>'" in prepare("ucf101", splits, status=1)


def test_msrvtt_with_two_sentences_of_a_video(prepare, tmp_path):
    rows = "key,vid_key,video_id,sentence\nr0,m1,video1,a cat\nr1,m1,video1,a dog\n"
    message = prepare("msrvtt", "--test-csv", put_text(tmp_path / "test.csv", rows), status=1)
    assert "test.csv, line 3: video1 has a sentence in line 2 already" in message


def test_msrvtt_in_two_calls_does_not_leave_queries_of_other_captions(prepare, tmp_path):
    """The list of queries names captions by their places, which another call's captions would change."""
    test_csv = put_text(tmp_path / "test.csv", TEST_CSV)
    source = put_json(tmp_path / "data.json", CHALLENGE)
    prepare("msrvtt", "--test-csv", test_csv)
    message = prepare("msrvtt", "--json", source, status=1)
    assert "jsfusion_val_caption_idx.pkl" in message and "--json and --test-csv, in one call" in message
    put_video(tmp_path / "data/videos/all/video2.mp4")
    before = build_dataset("msrvtt", "test", **options(tmp_path))
    prepare("msrvtt", "--json", source, "--test-csv", test_csv)
    test = build_dataset("msrvtt", "test", **options(tmp_path))
    assert list(test.records.ids) == list(before.records.ids)
    assert [" ".join(text.split()) for text in before.records.captions] == list(test.records.captions)


@pytest.mark.parametrize("caption", [None, 5, " "])
def test_msrvtt_captions_that_are_no_text(prepare, tmp_path, caption):
    content = {"videos": [], "sentences": [{"video_id": "video7", "caption": caption}]}
    message = prepare("msrvtt", "--json", put_json(tmp_path / "data.json", content), status=1)
    assert "data.json: caption of sentence 0 (video7) is" in message


def test_didemo_finds_videos_behind_links_and_nothing_but_videos(prepare, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    put_video(elsewhere / "deep/x@N00.mp4")
    put_text(elsewhere / "deep/x@N00.wav", "")
    for path in ("a/y@N01.mp4", "b/y@N01.mov", "b/z@N02.mp4", "a/z@N02.mp4"):
        put_video(tmp_path / "data" / path)
    (tmp_path / "data/link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(tmp_path / "data")
    names = ["x@N00.mov", "y@N01.mov", "z@N02.avi"]
    records = [{"video": name, "description": "a\ttext\n of it"} for name in names]
    printed = prepare("didemo", "--test", put_json(tmp_path / "test_data.json", records))
    test = build_dataset("didemo", "test", **options(tmp_path))
    assert list(test.records.ids) == ["link/deep/x@N00.mp4", "b/y@N01.mov", "a/z@N02.mp4"]
    assert set(test.records.captions) == {"a text of it"}
    assert "z@N02.avi: of a/z@N02.mp4, b/z@N02.mp4 the list takes a/z@N02.mp4" in printed
    assert "x@N00.mov" not in printed


@pytest.mark.parametrize("description", [None, 5, ""])
def test_didemo_descriptions_that_are_no_text(prepare, tmp_path, description):
    source = put_json(tmp_path / "test.json", [{"video": "x.mov", "description": description}])
    assert "test.json: entry 0 (x.mov), description is" in prepare("didemo", "--test", source, status=1)


def test_webvid_captions_become_one_line_each(prepare, tmp_path):
    rows = '1,P,"a\rb"\n2,P,"c\nd"\n3,P,"e\tf"\n4,P,"say ""hi"""\n5,P,\n6,P,"""quoted"" start"\n'
    source = put_text(tmp_path / "results.csv", "videoid,page_dir,name\n" + rows)
    printed = prepare("webvid", "--train", source)
    assert "left out: 1 video without a caption, e.g. " in printed and "results.csv, line 8" in printed
    (tmp_path / "data/train").mkdir()
    train = build_dataset("webvid", "train", **options(tmp_path))
    assert list(train.records.captions) == ["a b", "c d", "e f", 'say "hi"', '"quoted" start']
    assert list(train.records.ids) == ["P/1", "P/2", "P/3", "P/4", "P/6"]


def test_a_quote_that_swallows_rows_of_a_csv(prepare, tmp_path):
    rows = 'videoid,page_dir,name\n1,P,"look\n2,P,a ball\n3,P,end"\n'
    message = prepare("webvid", "--train", put_text(tmp_path / "results.csv", rows), status=1)
    assert "results.csv, line 2: a cell holds several lines" in message


def test_ids_of_yttemporal_that_would_leave_their_folder(prepare, tmp_path):
    records = [
        {**worlds.transcript(["o\ud83dne", "two"], 20), "info": {"display_id": name, "duration": 20}}
        for name in ("../../outside", "fine", "fine", "")
    ]
    source = put_text(tmp_path / "yt.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    put_video(tmp_path / "data/videos/subset_1/data/fine.mp4")
    printed = prepare("yttemporal", f"subset_1={source}", "--val-share", "0")
    assert "left out: 2 lines without a video id" in printed
    assert "left out: 1 line of videos that an earlier line has" in printed
    assert not list(tmp_path.rglob("outside*"))
    [item] = list(build_dataset("yttemporal", "train", **options(tmp_path)))
    assert item["failures"] == [] and all(text.encode() is not None for text in item["text"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b'{"info": {}}\n' * 9, mtime=0)[:-12], "yt.jsonl.gz cannot be read behind line"),
        (gzip.compress(b'{"info": {}}\n\xe9\n', mtime=0), "yt.jsonl.gz, line 2 is not JSON"),
        (b"plain", "yt.jsonl.gz cannot be read behind line 0"),
    ],
)
def test_damaged_json_lines(prepare, tmp_path, content, message):
    (tmp_path / "yt.jsonl.gz").write_bytes(content)
    assert message in prepare("yttemporal", f"subset_1={tmp_path / 'yt.jsonl.gz'}", status=1)


def test_a_list_that_cannot_be_written(prepare, tmp_path):
    (tmp_path / "meta_data").write_text("a file where the folder should be")
    splits = put_text(tmp_path / "hmdb/wave_test_split1.txt", "a.avi 1\n").parent
    assert "could not write" in prepare("hmdb51", splits, status=1)
