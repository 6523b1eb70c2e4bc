"""Lists in four forms, as columns of texts and numbers."""

import json

import numpy as np
import pandas as pd
import pytest

from data_loader.list_columns import read_columns

ROWS = {"path": ["a.mp4", "b, c.mp4"], "caption": ["NA", "ü"], "score": [1.5, 2.0], "id": [7, 2**60]}


def write(path, rows=ROWS):
    frame = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_all_forms_hold_the_same(suffix, tmp_path):
    table = read_columns(write(tmp_path / f"list{suffix}"), "videos")
    assert len(table) == 2 and table.texts("path") == ROWS["path"] and table.values("caption") == ["NA", "ü"]
    if suffix in (".jsonl", ".parquet"):
        np.testing.assert_array_equal(table.values("score"), ROWS["score"])
        assert table.values("id").tolist() == ROWS["id"]  # whole numbers stay exact
        place = "line 2" if suffix == ".jsonl" else "row 2"
    else:
        assert table.values("score") == ["1.5", "2.0"]
        place = "line 3"
    assert table.where(1) == f"{tmp_path / f'list{suffix}'}, {place}"
    with pytest.raises(ValueError, match=r"has no column 'file'; its columns are \['path', 'caption'"):
        table.texts("file")


def jsonl(path, *objects):
    path.write_text("".join(json.dumps(content) + "\n" for content in objects))
    return read_columns(path, "videos")


def test_empty_cells(tmp_path):
    table = jsonl(tmp_path / "a.jsonl", {"path": "a", "n": 1}, {"path": "b", "text": "x", "n": None})
    assert table.values("text") == ["", "x"]
    np.testing.assert_array_equal(table.values("n"), [1, np.nan])
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: 'text' is None; a text is needed"):
        table.texts("text")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["x", 1], "'c' holds int, str; a column is of texts or of numbers"),
        ([[1], [2]], "'c' holds list"),
        ([True, None], "'c' holds NoneType, bool"),
        ([2**60, None], "line 1: 'c' is too large beside empty cells"),
        ([2**70, 1], "a number in the column 'c' is too large"),
        (["\ud83d", "x"], "line 1: 'c' holds half a character"),
    ],
)
def test_cells_that_no_column_takes(cells, message, tmp_path):
    table = jsonl(tmp_path / "a.jsonl", *({"path": "a", "c": cell} for cell in cells))
    with pytest.raises(ValueError, match=message):
        table.values("c")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"path": "a"}\n{"path": \n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", '["a"]\n', r"a\.jsonl, line 1: .* is no JSON object"),
        (
            "a.jsonl",
            '{"path": "a", "path": "b"}\n',
            r"line 1 is not JSON: an object has the key 'path' twice",
        ),
        ("a.jsonl", "\n", "is empty: expected videos"),
        ("a.csv", "path,path\na,b\n", "each needs a name of its own"),
        ("a.csv", "path,start\na\n", r"a\.csv, line 2: 1 cell, where the first row has 2"),
        ("a.parquet", "something else", r"a\.parquet is no parquet file"),
    ],
)
def test_lists_that_cannot_be_read(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_columns(tmp_path / name, "videos")
    with pytest.raises(FileNotFoundError, match="is missing: videos"):
        read_columns(tmp_path / f"gone-{name}", "videos")
