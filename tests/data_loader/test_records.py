import pickle

import pytest

from data_loader.records import (
    Strings,
    first_row,
    need_column,
    need_folder,
    read_json,
    read_lines,
    read_table,
)


def test_strings_behave_like_a_list():
    texts = ["", "one", "naïve 視頻", "", "last"]
    strings = Strings(texts)
    assert list(strings) == texts
    assert len(strings) == 5
    assert strings[-1] == "last"
    assert strings[1:3] == texts[1:3]
    assert "one" in strings
    with pytest.raises(IndexError, match="string 5 of 5"):
        strings[5]


def test_strings_of_nothing():
    assert list(Strings([])) == []
    assert not Strings([])


def test_strings_are_two_arrays_when_sent_to_a_worker():
    strings = Strings(f"caption {i}" for i in range(10_000))
    assert list(pickle.loads(pickle.dumps(strings))) == list(strings)  # noqa: S301
    assert len(vars(strings)) == 2


def test_a_table_keeps_every_cell_as_text(tmp_path):
    path = tmp_path / "list.tsv"
    path.write_text('caption\tpath\nNA\t007\n"quoted\ttab"\tnull\n')
    table = read_table(path, "captions")
    assert table.to_numpy().tolist() == [["NA", "007"], ["quoted\ttab", "null"]]
    assert first_row(path, "captions") == ["caption", "path"]


def test_a_missing_list_says_what_it_is_and_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"list\.tsv is missing: captions.*\nMake it"):
        read_table(tmp_path / "list.tsv", "captions", "Make it so")


@pytest.mark.parametrize("content", ["", "a\tb\n1\t2\t3\t4\n5\n6\t7\t8\t9\t1\n"])
def test_a_file_that_is_no_table(tmp_path, content):
    path = tmp_path / "list.tsv"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"list\.tsv does not read as a table of captions"):
        read_table(path, "captions")


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    path = tmp_path / "list.tsv"
    path.write_text("caption\tpath\na\tb\n")
    table = read_table(path, "captions")
    assert list(need_column(table, "path", path)) == list(need_column(table, 1, path)) == ["b"]
    with pytest.raises(ValueError, match=r"list\.tsv has no column 'Name'.*caption.*path"):
        need_column(table, "Name", path)
    with pytest.raises(ValueError, match="needs at least 3 columns"):
        need_column(table, 2, path)


def test_broken_json_and_missing_folder_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not JSON \(the classes\)"):
        read_json(path, "the classes")
    with pytest.raises(FileNotFoundError, match=r"the folder .*videos is missing: the videos"):
        need_folder(tmp_path / "videos", "the videos")


def test_lines_are_stripped(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("video1\r\n\n video2 \n")
    assert read_lines(path, "a list") == ["video1", "video2"]
