"""Tables of videos and spans, and how their columns travel to the features."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_loader.video import file_state
from downstream import feature_extraction
from downstream.feature_files import load_features
from downstream.features import extract_features
from downstream.inputs.video_lists import is_table, read_video_list

from ..layouts import write_video
from ..test_feature_extraction import command, plain_feature


@pytest.fixture
def folder(tmp_path):
    for i in range(2):
        write_video(tmp_path / f"{i}.mp4", seed=i)
    return tmp_path


def test_which_lists_are_tables(tmp_path):
    for name, text, expected in (
        ("a.csv", "path,label\nx,y\n", True),
        ("b.csv", '"start","end"\n1,2\n', True),
        ("c.csv", "my_videos/a.mp4\nmy_videos/b.mp4\n", False),
        ("d.tsv", "label\tpath\nx\ty\n", True),
        ("e.txt", "path\n", False),
        ("f.jsonl", '{"a": 1}\n', True),
    ):
        (tmp_path / name).write_text(text)
        assert is_table(tmp_path / name) is expected


def test_rows_become_clips(folder):
    (folder / "list.csv").write_text(
        "path,start,end,label\n0.mp4,,0:00:01.5,run\nsub/x.mp4,1,,\n0.mp4,,,sit\n"
    )
    found = read_video_list(folder / "list.csv")
    video = str(folder / "0.mp4")
    assert [(clip.path, *clip.span) for clip in found.clips] == [
        (video, 0.0, 1.5),
        (str(folder / "sub/x.mp4"), 1.0, np.inf),
        (video, 0.0, np.inf),
    ]
    assert found.clips[1].where == f"{folder / 'list.csv'}, line 3" and found.has_spans
    assert found.columns == {"label": ["run", "", "sit"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,start\na.mp4,1\nb.mp4,x\n", r"list\.csv, line 3: 'x' is no time"),
        ("path,start,end\na.mp4,5,5\n", r"line 2: the span 5 s to 5 s does not end after its start"),
        ("path,start,end\na.mp4,nan,5\n", r"line 2: 'nan' is no time"),
        ("path,duration\na.mp4,3\n", "the column 'duration' needs another name: features have a column"),
        ("path,features\na.mp4,3\n", "the column 'features' needs another name"),
        ("path,a/b\na.mp4,3\n", "the column 'a/b' needs another name: not all formats take it"),
        ("path,label\na.mp4,x\nb.mp4,x\na.mp4,y\n", r"line 4: names .*a\.mp4 as .*line 2 does; make one row"),
        ("path,label\n,x\n", r"line 2: 'path' is ''; a text is needed"),
        ("start,end\n1,2\n", r"has no column 'path'; its columns are \['start', 'end'\]"),
    ],
)
def test_mistakes_name_the_line(text, message, folder, capsys):
    (folder / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_video_list(folder / "list.csv")
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main(["--list", str(folder / "list.csv"), "-o", "x.npz", "-r", "/nowhere.pth"])
    assert stop.value.code == 2 and "list.csv" in capsys.readouterr().err


def test_spans_of_a_list_are_embedded_with_its_columns(folder, model, checkpoint, capsys):
    """Killed or not, changed or not: each span once, with what the list says now."""
    rows = [
        {"path": "0.mp4", "start": 0.5, "end": 1.5, "label": "run", "score": 1},
        {"path": "1.mp4", "start": None, "end": "00:00:00.8", "label": None, "score": 2},
        {"path": "0.mp4", "start": 1, "end": 9, "label": "gone", "score": 3},
        {"path": "0.mp4", "start": 1.5, "end": None, "label": "sit", "score": 4},
    ]

    def run(rows, out, *more):
        (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return feature_extraction.main(command(checkpoint, "--list", folder / "list.jsonl", "-o", out, *more))

    out = folder / "out.npz"
    assert run(rows, out) == 1
    table = load_features(out)
    assert table.columns["label"] == ["run", "", "sit"] and table.columns["score"].tolist() == [1, 2, 4]
    np.testing.assert_allclose(table.columns["start"], [0.5, 0, 1.5])
    np.testing.assert_allclose(table.columns["end"], [1.5, 0.8, 2.0])
    for row, (name, first, end) in enumerate((("0", 5, 15), ("1", 0, 8), ("0", 15, 20))):
        expected = plain_feature(model, folder / f"{name}.mp4", first, end)
        np.testing.assert_allclose(table.features[row], expected, atol=2e-5)
    said = capsys.readouterr().err
    assert "list.jsonl, line 3: the span 1 s to 9 s lies outside the video, which lasts 2 s" in said
    report = json.loads((folder / "out.npz.report.json").read_text())
    assert [Path(failure["path"]).name for failure in report["failed_files"]] == ["0.mp4"]

    # Other rows, other columns' values: what is there is not embedded again, and says what the list says.
    changed = [
        rows[3] | {"label": "stand"},
        {"path": "1.mp4", "start": 1, "end": 2, "label": "new", "score": 9},
    ]
    assert run(changed, out) == 0
    assert "video features: [2, 96]" in capsys.readouterr().out
    after = load_features(out)
    assert after.columns["label"] == ["run", "", "stand", "new"]
    np.testing.assert_array_equal(after.features[:3], table.features)
    assert (
        run(changed, out) == 0 and "(2 were there already, 2 other vectors kept)" in capsys.readouterr().out
    )

    # Another set of columns, or another kind of them, is another table.
    for other, message in (
        ([rows[0] | {"more": "x"}], "list ['end', 'label', 'score', 'start'] (now ['end', 'label', 'more'"),
        ([rows[0] | {"score": "x"}], "the column score is of texts now"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(other, out)
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_whole_videos_with_columns_and_windows_of_spans(folder, checkpoint):
    pd.DataFrame({"path": ["1.mp4", "0.mp4"], "text": ["a", "b"]}).to_parquet(folder / "list.parquet")
    found = extract_features(
        [], "TVTSv2_Demo", checkpoint, list_file=folder / "list.parquet", num_workers=0, device="cpu"
    )
    assert found.table.columns["text"] == ["a", "b"] and "start" not in found.table.columns
    assert found.table.columns["path"] == [str(folder / "1.mp4"), str(folder / "0.mp4")]
    assert found.table.columns["size_bytes"].tolist() == [
        file_state(path)[0] for path in found.table.columns["path"]
    ]
    (folder / "list.tsv").write_text("path\tstart\n1.mp4\t0.5\n0.mp4\t1.7\n")
    found = extract_features(
        [], "TVTSv2_Demo", checkpoint, list_file=folder / "list.tsv", window=0.8, num_workers=0, device="cpu"
    )
    np.testing.assert_allclose(found.table.columns["start"], [0.5, 1.3, 1.7])
    np.testing.assert_allclose(found.table.columns["end"], [1.3, 2.0, 2.0])
    with pytest.raises(ValueError, match=r"list\.tsv is a table; name other videos in a row of it"):
        extract_features([folder / "0.mp4"], "TVTSv2_Demo", checkpoint, list_file=folder / "list.tsv")


def test_pieces_that_overlapping_spans_share(folder, checkpoint, capsys):
    """Each once, where the rows say the same of them."""
    out, spans = folder / "out.npz", folder / "spans.csv"
    given = command(checkpoint, "--list", spans, "-o", out, "--window", 0.6)
    spans.write_text("path,start,end,label\n0.mp4,0,1.2,run\n0.mp4,0,1.8,sit\n")
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main(given)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and not out.exists()
    assert "line 3: its piece 0 s to 0.6 s" in said and "line 2, too, where 'label' is 'run'" in said
    spans.write_text("path,start,end,label\n0.mp4,0,1.2,run\n0.mp4,0,1.8,run\n")
    assert feature_extraction.main(given) == 0
    assert load_features(out).columns["start"].tolist() == pytest.approx([0, 0.6, 1.2])
    assert "already" not in capsys.readouterr().out


def test_a_zero_byte_in_a_text_is_named(folder):
    (folder / "list.jsonl").write_text('{"path": "0.mp4", "label": "a\\u0000"}\n')
    with pytest.raises(ValueError, match="line 1: 'label' holds a zero byte"):
        read_video_list(folder / "list.jsonl")
