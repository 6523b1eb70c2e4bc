"""Captions on spans, each set from small files of its public form; the lists are read as training data."""

import csv
import json
import re

import pytest

from data_loader import build_dataset
from data_loader.spans import Span
from tests.data_loader.worlds import put_json, put_text, put_video
from tests.extras import extra


def records(tmp_path, name, split="train", kind="csv", **more):
    lists = {"root": tmp_path / "data", "meta": tmp_path / "meta_data", "files": f"{name}/{split}.tsv"}
    return build_dataset(kind, split, **lists, **more).records


def internvid_row(video, start, end, caption, score=0.4):
    row = {"YoutubeID": video, "Start_timestamp": start, "End_timestamp": end, "Caption": caption}
    return {**row, "Aesthetic_Score": 4.6, "UMT_Score": score}


def json_lines(path, rows):
    return put_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_internvid(prepare, tmp_path):
    rows = [
        internvid_row("HdYoyzCSWyw", "00:03:10.567", "00:03:11.200", "woman using a computer"),
        internvid_row("_VljYs8BhSE", "00:00:07.533", "00:00:11.633", "diy gift\twrap"),
        internvid_row("HdYoyzCSWyw", "00:03:10.567", "00:03:11.200", "woman using a computer"),
        internvid_row("HdYoyzCSWyw", "00:00:02.000", "00:00:02.000", "nothing"),
        internvid_row("HdYoyzCSWyw", "00:00:03.000", "00:00:04.000", " "),
        internvid_row("_VljYs8BhSE", "00:00:00.000", "00:00:01.500", "paper", 0.1),
    ]
    file = json_lines(tmp_path / "InternVid-10M-flt.jsonl", rows)
    put_video(tmp_path / "data/part1/_VljYs8BhSE.webm")
    printed = prepare("internvid", "--train", file, "--val-share", 0)
    assert "train.tsv: 3 rows of 2 videos; 1 video missing below" in printed
    assert f"left out: 1 row that come twice, e.g. {file}, line 3" in printed
    assert "left out: 1 row whose span does not end after its start" in printed
    assert "left out: 1 row without a caption" in printed
    found = records(tmp_path, "internvid")
    assert [found[i].path.name for i in range(3)] == [
        "HdYoyzCSWyw.mp4",
        "_VljYs8BhSE.webm",
        "_VljYs8BhSE.webm",
    ]
    assert [found.span(i) for i in range(3)] == [Span(190.567, 191.2), Span(7.533, 11.633), Span(0, 1.5)]
    assert list(found.captions) == ["woman using a computer", "diy gift wrap", "paper"]
    printed = prepare("internvid", "--train", file, "--val-share", 0, "--drop-missing", "--min-score", "0.2")
    assert "train.tsv: 1 row of 1 video" in printed and "left out: 1 row with a score below 0.2" in printed
    assert "left out: 2 rows of videos that are not there, e.g." in printed
    assert len(records(tmp_path, "internvid")) == 1


def test_a_share_of_the_videos_validates(prepare, tmp_path):
    rows = [
        internvid_row(f"video{i:06d}", f"00:00:0{k}.000", f"00:00:0{k + 1}.000", f"caption {i} {k}")
        for i in range(200)
        for k in range(3)
    ]
    printed = prepare("internvid", "--train", json_lines(tmp_path / "a.jsonl", rows), "--val-share", "0.2")
    assert "our inference" in printed
    train, val = (set(records(tmp_path, "internvid", split).ids) for split in ("train", "val"))
    assert len(train) + len(val) == 600 and 60 < len(val) < 180
    files = [{name.partition("#")[0] for name in names} for names in (train, val)]
    assert not files[0] & files[1] and len(files[1]) * 3 == len(val)
    with_own = prepare("internvid", "--train", tmp_path / "a.jsonl", "--val", tmp_path / "a.jsonl")
    assert with_own.count("600 rows of 200 videos") == 2


def test_a_list_of_before_that_shares_videos_is_refused(prepare, tmp_path):
    rows = [internvid_row(f"video{i}", "1", "2", f"caption {i}") for i in range(20)]
    train = ("internvid", "--train", json_lines(tmp_path / "a.jsonl", rows), "--val-share")
    prepare(*train, 0.3)
    lists = {name: (tmp_path / f"meta_data/internvid/{name}.tsv") for name in ("train", "val", "test")}
    before = lists["train"].read_text()
    said = prepare(*train, 0, status=1)  # what val.tsv has would be trained on
    assert f"{lists['val']}, of an earlier call, has " in said and lists["train"].read_text() == before
    prepare(*train, 0.2)
    assert "train.tsv, of an earlier call" in prepare("internvid", "--test", tmp_path / "a.jsonl", status=1)
    assert not lists["test"].exists()
    lists["val"].unlink()
    prepare(*train, 0)


def test_a_score_that_is_no_number_is_not_above_another(prepare, tmp_path):
    rows = [internvid_row(name, "1", "2", name, score) for name, score in (("a", 0.4), ("b", float("nan")))]
    file = json_lines(tmp_path / "a.jsonl", rows)
    prepare("internvid", "--train", file, "--val-share", 0, "--min-score", 0.1)
    assert list(records(tmp_path, "internvid").captions) == ["a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"a\.jsonl, line 2 is not JSON"),
        ('{"YoutubeID": "a"}', r"a\.jsonl, line 2, .* is no object with YoutubeID, Start_timestamp"),
        (json.dumps(internvid_row("a", "0:00:61", "0:02:00", "x")), r"line 2: '0:00:61' is no time"),
        (json.dumps(internvid_row("a", "1", "2", 5)), r"line 2, Caption is 5, not a text"),
        (json.dumps(internvid_row("a", "1", "2", "x", "high")), r"line 2, UMT_Score is 'high', no number"),
    ],
)
def test_broken_lines_of_internvid_are_named_and_nothing_is_written(prepare, tmp_path, line, message):
    first = json.dumps(internvid_row("a", "1", "2", "x"))
    file = put_text(tmp_path / "a.jsonl", f"{first}\n{line}\n")
    assert re.search(message, prepare("internvid", "--train", file, status=1))
    assert not list((tmp_path / "meta_data").rglob("*.tsv*"))


def panda_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        names = "videoID url timestamp caption matching_score desirable_filtering shot_boundary_detection"
        writer.writerow(names.split())
        for video, spans, captions, scores in rows:
            url = f"https://www.youtube.com/watch?v={video}"
            writer.writerow([video, url, str(spans), str(captions), str(scores), "[]", "[]" * 100_000])
    return path


def test_panda70m(prepare, tmp_path):
    spans = [["0:01:20.880", "0:01:23.983"], ["0:02:31.151", "0:02:34.320"]]
    rows = [("-2yHu5qgTzM", spans, ["A neuron.", 'It\'s a "woman", talking.'], [0.45, 0.39])]
    rows.append(("NA", [["0:00:00.000", "0:00:03.069"]], ["N/A"], [0.5]))
    put_video(tmp_path / "data/-2yHu5qgTzM.mp4")
    test = panda_csv(tmp_path / "panda70m_testing.csv", rows)
    printed = prepare("panda70m", "--test", test)
    assert "test.tsv: 3 rows of 2 videos; 1 video missing below" in printed
    found = records(tmp_path, "panda70m", "test")
    assert list(found.captions) == ["A neuron.", 'It\'s a "woman", talking.', "N/A"]
    assert found.span(1) == Span(151.151, 154.32) and found.path(2).name == "NA.mp4"
    assert "test.tsv: 2 rows" in prepare("panda70m", "--test", test, "--min-score", "0.43")
    for row, message in (
        (("a", spans, ["one"], [0.5, 0.5]), "row 1 (a): 2 times, 1 captions and 2 scores"),
        (("a", [["0:00:00.000"]], ["one"], [0.5]), "row 1 (a): ['0:00:00.000'] is no [start, end]"),
        (("a", "__import__('os')", ["one"], [0.5]), "row 1 (a), timestamp: \"__import__('os')\" is no list"),
    ):
        broken = panda_csv(tmp_path / "broken.csv", [row])
        assert message in prepare("panda70m", "--test", broken, status=1)
    put_text(tmp_path / "other.csv", "id,text\na,b\n")
    assert "other.csv has no column 'videoID'" in prepare(
        "panda70m", "--test", tmp_path / "other.csv", status=1
    )


HOWTO = {
    "nVbIUDjzWY4": {"start": [1.0, 3.5], "end": [4.2, 6], "text": ["hey guys", "today we\nbake"]},
    "4RRkKNhUOkg": {"start": [0.1], "end": [2.0], "text": [" "]},
}


def test_howto100m_as_spans(prepare, tmp_path):
    extra("ijson")
    put_video(tmp_path / "data/nVbIUDjzWY4.mp4")
    file = put_json(tmp_path / "raw_caption.json", HOWTO)
    printed = prepare("howto100m", "--train", file, "--val-share", 0)
    assert "train.tsv: 2 rows of 1 video\n" in printed and "left out: 1 row without a caption" in printed
    found = records(tmp_path, "howto100m")
    assert list(found.captions) == ["hey guys", "today we bake"] and found.span(0) == Span(1, 4.2)
    for content, message in (
        ({"a": {"start": [1], "end": [2], "text": []}}, "a: start, end and text are no lists of the same"),
        ({"a": [1]}, "a, [1], is no object with start, end, text"),
    ):
        broken = put_json(tmp_path / "broken.json", content)
        assert message in prepare("howto100m", "--train", broken, status=1)
    put_text(tmp_path / "cut.json", json.dumps(HOWTO)[:60])
    assert "cut.json is no JSON of HowTo100M" in prepare(
        "howto100m", "--train", tmp_path / "cut.json", status=1
    )


def test_howto100m_as_transcripts_from_a_csv_a_video(prepare, tmp_path):
    put_video(tmp_path / "data/all/nVbIUDjzWY4.mp4")
    put_text(tmp_path / "captions/nVbIUDjzWY4.csv", ",start,end,text\n0,1.0,4.2,hey guys\n1,3.5,6,bake\n")
    put_text(tmp_path / "captions/gone.csv", ",start,end,text\n0,1.0,4.2,hey\n")
    arguments = ("--train", tmp_path / "captions", "--val-share", 0, "--drop-missing", "--transcripts")
    printed = prepare("howto100m", *arguments)
    assert "train.tsv: 1 row of 1 video" in printed and "of videos that are not there" in printed
    found = records(tmp_path, "howto100m", kind="narrated")
    transcript = found[0].transcript
    assert found[0].path == tmp_path / "data/all/nVbIUDjzWY4.mp4"
    assert transcript.words == ["hey", "guys", "bake"] and transcript.times == [1, 2.25, 3.5]


def vript_scene(clip, content):
    caption = {"shot_type": "close-up", "camera_movement": "static", "content": content, "scene_title": "x"}
    return {"video_id": clip[:11], "clip_id": clip, "caption": caption, "voiceover": ["…"]}


def test_vript(prepare, tmp_path):
    clips = [f"339dXVNQXac-Scene-00{k}" for k in (1, 2)]
    scenes = {clip: vript_scene(clip, f"Scene {k}.") for k, clip in enumerate(clips)}
    content = {"meta": {"video_id": "339dXVNQXac", "num_clips": 2, "integrity": True}, "data": scenes}
    put_json(tmp_path / "captions/339dXVNQXac_caption.json", content)
    for clip in clips:
        put_video(tmp_path / f"data/clips/{clip}.mp4")
    printed = prepare("vript", "--train", tmp_path / "captions", "--val-share", 0)
    assert "train.tsv: 2 rows of 2 videos\n" in printed and "its content, without title" in printed
    found = records(tmp_path, "vript")
    assert found.spans is None and list(found.captions) == ["Scene 0.", "Scene 1."]
    assert found.path(1) == tmp_path / f"data/clips/{clips[1]}.mp4"

    whole = ("vript", "--train", tmp_path / "captions", "--cuts", tmp_path / "cuts", "--val-share", 0)
    said = prepare(*whole, status=1)
    assert "holds no <video>_cut_meta.json" in said and "could not write" not in said
    cuts = [  # by the names of the scenes' files, as published
        {"clip_id": f"{clip}.mp4", "start": f"00:00:0{2 * k}.5", "end": f"00:00:0{2 * k + 1}"}
        for k, clip in enumerate(clips)
    ]
    put_json(tmp_path / "cuts/339dXVNQXac/339dXVNQXac_cut_meta.json", {"clips": cuts})
    assert "2 rows of 1 video; 1 video missing" in prepare(*whole)
    found = records(tmp_path, "vript")
    assert found.path(1).name == "339dXVNQXac.mp4" and found.span(1) == Span(2.5, 3)
    lines = json_lines(tmp_path / "vript_long_videos_captions.jsonl", scenes.values())
    assert "2 rows of 1 video" in prepare(*whole[:2], lines, *whole[3:])
    assert list(records(tmp_path, "vript").captions) == ["Scene 0.", "Scene 1."]
    listed = [{"clip_id": clips[0], "start_time": 0, "end_time": 1}]
    put_json(tmp_path / "cuts/339dXVNQXac/339dXVNQXac_cut_meta.json", listed)
    assert f"says when {clips[1]} is" in prepare(*whole, status=1)
    put_json(tmp_path / "cuts/339dXVNQXac/339dXVNQXac_cut_meta.json", [{"from": 1}])
    assert "nothing in it has the start" in prepare(*whole, status=1)


def test_files_must_be_named_and_there(prepare, tmp_path):
    assert "name the files: --train, --val or --test" in prepare("internvid", status=1)
    assert "gone.jsonl is missing: the captions of internvid" in prepare(
        "internvid", "--train", tmp_path / "gone.jsonl", status=1
    )
    assert "--val-share is 1.0" in prepare("internvid", "--train", tmp_path, "--val-share", 1, status=1)
