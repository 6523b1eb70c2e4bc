"""Captions on spans of videos as training records, alone and four in a row for sorting."""

import json

import pytest

from data_loader import build_dataset
from data_loader.video import VideoReadError

from . import video_files as files

SPANS = [(0.0, 0.2), (0.24, 0.44), (0.48, 0.72), (0.8, 1.0), (1.0, 1.2), (1.2, 1.6)]  # at 25 frames a second
COMMON = {"num_frames": 12, "image_size": 40}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two videos, 1.6 s each; frames carry their numbers."""
    root = tmp_path_factory.mktemp("spans")
    for name in ("a", "b"):
        files.write_video(root / f"{name}.mp4", options={"g": "8"})
    return root


def write_list(folder, rows, header="file,from,to,words"):
    path = folder / "list.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def open_set(root, path, split="train", **more):
    columns = {
        "path_column": "file",
        "caption_column": "words",
        "start_column": "from",
        "end_column": "to",
        "suffix": ".mp4",
    }
    return build_dataset("csv", split, root=root, files=str(path), **{**columns, **COMMON, **more})


def test_a_row_is_a_record_of_its_span_alone(root, tmp_path):
    rows = [("a", start, end, f"caption {i}") for i, (start, end) in enumerate(SPANS)]
    dataset = open_set(root, write_list(tmp_path, rows))
    assert len(dataset) == len(SPANS)
    for i, (start, end) in enumerate(SPANS):
        for epoch in range(2):
            item = dataset[epoch, i]
            assert item["text"] == [f"caption {i}"] and item["failures"] == []
            # a random crop moves the blocks of a number: what is behind the frames is zeros
            assert item["valid_frames"] == min(12, round((end - start) * 25))
    numbers = files.frame_numbers(open_set(root, tmp_path / "list.csv", view="test")[2]["video"][:6])
    assert numbers == list(range(12, 18))


@pytest.mark.parametrize("form", ["csv", "jsonl", "tsv"])
def test_times_may_be_clocks_in_any_form_of_list(root, tmp_path, form):
    rows = [{"file": "a", "from": "00:00:00.4", "to": 0.8, "words": "one"}]
    path = tmp_path / f"list.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        sep = {"csv": ",", "tsv": "\t"}[form]
        path.write_text("\n".join(sep.join(map(str, line)) for line in (rows[0], rows[0].values())) + "\n")
    dataset = open_set(root, path, "test", num_frames=10)
    assert files.frame_numbers(dataset[0]["video"]) == list(range(10, 20))
    by_place = {"path_column": 0, "start_column": 1, "end_column": 2, "caption_column": 3}
    dataset = open_set(root, path, "test", num_frames=10, **by_place)
    assert files.frame_numbers(dataset[0]["video"]) == list(range(10, 20))


def test_columns_that_are_named_must_be_there(root, tmp_path):
    path = write_list(tmp_path, [("a", 0, 1, "one")], "file,begin,to,words")
    with pytest.raises(ValueError, match=r"no column 'from'; its columns are \['file', 'begin'"):
        open_set(root, path)
    (tmp_path / "list.jsonl").write_text('{"file": "a", "words": "one"}\n')
    with pytest.raises(ValueError, match="no column 'from'"):
        open_set(root, tmp_path / "list.jsonl")
    path = write_list(tmp_path, [("a", 0, 1, "one"), ("a", "1:75", 9, "two")])
    with pytest.raises(ValueError, match=r"list\.csv, line 3: '1:75' is no time"):
        open_set(root, path)


def four_in_a_row(root, folder, split="train", rows=None, **more):
    rows = [("a", *span, f"caption {i}") for i, span in enumerate(SPANS)] if rows is None else rows
    return open_set(root, write_list(folder, rows), split, num_clips=4, **more)


def test_four_spans_that_follow_each_other_are_a_sample_of_sorting(root, tmp_path):
    rows = [("a", *span, f"caption {i}") for i, span in enumerate(SPANS)]
    dataset = four_in_a_row(root, tmp_path, rows=[rows[i] for i in (3, 0, 5, 1, 4, 2)])
    assert len(dataset) == 1 and dataset.records.num_clips == 4
    seen = set()
    for epoch in range(20):
        item = dataset[epoch, 0]
        first = int(item["text"][0][-1])
        assert item["text"] == [f"caption {first + k}" for k in range(4)]
        seen.add(first)
        assert item["id"] == "a.mp4" and item["valid_frames"] == 12
    assert seen == {0, 1, 2}


def test_each_span_of_a_sample_needs_a_frame(root, tmp_path):
    with pytest.raises(ValueError, match=r"num_frames is 3, but a sample has 4 spans \(num_clips\)"):
        four_in_a_row(root, tmp_path, num_frames=3)


def test_frames_come_from_each_span_alone(root, tmp_path):
    dataset = four_in_a_row(root, tmp_path, "test")
    item = dataset[0]
    first = int(item["text"][0][-1])
    numbers = files.frame_numbers(item["video"])
    assert numbers == sorted(numbers)
    for k in range(4):
        start, end = SPANS[first + k]
        assert all(start * 25 <= number + 0.01 < end * 25 for number in numbers[3 * k : 3 * k + 3])


def test_a_span_with_several_captions_gives_one_of_them(root, tmp_path):
    rows = [("a", *span, f"caption {i}") for i, span in enumerate(SPANS[:4])]
    rows.append(("a", *SPANS[1], "another"))
    dataset = four_in_a_row(root, tmp_path, rows=rows)
    assert {dataset[epoch, 0]["text"][1] for epoch in range(20)} == {"caption 1", "another"}
    assert four_in_a_row(root, tmp_path, "test", rows=rows)[0]["text"][1] == "caption 1"


def test_videos_without_four_that_follow_are_left_out_and_counted(root, tmp_path, caplog):
    rows = [("b", *span, "of b") for span in SPANS[:3]]
    rows += [("a", *span, "of a") for span in SPANS]
    dataset = four_in_a_row(root, tmp_path, rows=rows)
    assert [dataset.records.id(i) for i in range(len(dataset))] == ["a.mp4"]
    assert "1 video left out: none of their spans are 4 that follow one another" in caplog.text
    with pytest.raises(ValueError, match=r"list\.csv: none of its 1 videos has 4 captioned spans"):
        four_in_a_row(root, tmp_path, rows=rows[:3])


def test_sorting_takes_a_list_with_spans(root, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("file,words\na,one\n")
    with pytest.raises(ValueError, match=r"list\.csv: num_clips is 4.*no columns of their starts and ends"):
        open_set(root, path, num_clips=4, start_column=None, end_column=None)


def test_a_span_behind_the_end_of_its_video_is_unreadable(root, tmp_path):
    rows = [("a", 10 * i, 10 * i + 5, f"caption {i}") for i in range(4)]
    with pytest.raises(VideoReadError, match=r"a\.mp4: the span .* lies outside the video"):
        four_in_a_row(root, tmp_path, "test", rows=rows)[0]
    rows += [("b", *span, f"caption {i}") for i, span in enumerate(SPANS)]
    item = four_in_a_row(root, tmp_path, rows=rows)[0]
    assert item["id"] == "b.mp4" and "lies outside" in item["failures"][0].reason
