import json

import pytest

from data_loader.lists import need_folder, need_text, numbered_lines, read_json, read_lines, read_table


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "list.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_table_keeps_every_cell_as_text(write):
    table = read_table(write('caption\tpath\nNA\t007\n\n"say ""hi""" now\tnull\r\n'), "captions")
    assert table.names == ["caption", "path"]
    assert table.columns == [["NA", 'say "hi" now'], ["007", "null"]]
    assert [table.where(row).partition(", ")[2] for row in range(2)] == ["line 2", "line 4"]


def test_quotes_are_read_as_pandas_reads_them(write):
    cells = ['"x" y', 'x "q" y', '"x ""q"" y"', ' "x"', '""x', 'x"']
    path = write("caption\tpath\n" + "".join(f"{cell}\tz\n" for cell in cells))
    assert read_table(path, "captions").column(0) == ["x y", 'x "q" y', 'x "q" y', ' "x"', "x", 'x"']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a ring\tv0\n"look, a ball\tv1\na square\tv2\n"there it goes\tv3\n', "line 3: a cell holds a tab"),
        ('a ring\tv0\n"look, a ball\tv1\na square\tv2\n', "line 3: a cell holds a tab"),  # never closed
        ('a ring\tv0\n"two\nlines"\tv1\n', "line 3: a cell holds several lines"),
        ("a ring\tv0\na \0 b\tv1\n", "line 3: a cell holds a zero byte"),
        ("a ring\tv0\t\n", "line 2: 3 cells, where the first row has 2; is there a tab too many"),
        ("a ring\n", "line 2: 1 cell, where the first row has 2"),
        ("a ring\tv0\na\rb\tv1\n", "line 3: 1 cell,"),  # a carriage return ends a line
        ('a ring\tv0\n"' + "long " * 40_000, "line 3: field larger than field limit.*a quote never closed"),
    ],
)
def test_rows_that_cannot_be_right_are_named_by_their_line(write, content, message):
    path = write("caption\tpath\n" + content)
    with pytest.raises(ValueError, match=rf"list\.tsv, {message}"):
        read_table(path, "captions")


def test_official_csv_files_may_have_captions_over_several_lines(write):
    path = write('id,name\n1,"two\nlines"\n2,"a\rb"\n3,"c\td"\n', "list.csv")
    assert read_table(path, "x", sep=",", join_lines=True).column("name") == ["two lines", "a b", "c d"]
    swallowing = write('id,name\n1,"look\n2,a ball\n3,end"\n', "list.csv")
    with pytest.raises(ValueError, match=r"list\.csv, line 2: a cell holds several lines"):
        read_table(swallowing, "x", sep=",", join_lines=True)


def test_other_encodings(write):
    content = "caption\tpath\ncafé\tv0\n"
    assert read_table(write(content.encode("utf-8-sig")), "x").column("caption") == ["café"]
    for encoding in ("cp1252", "utf-16"):
        with pytest.raises(ValueError, match=r"list\.tsv, line [12]: byte 0x(e9|ff) is not UTF-8.*iconv"):
            read_table(write(content.encode(encoding)), "x")
    with pytest.raises(ValueError, match=r"line 1: byte 0xe9 is not UTF-8"):
        read_lines(write("café\n".encode("latin-1")), "x")


def test_a_list_without_header_is_told_by_its_first_row(write):
    path = write("a.b\tx\nc.d\ty\n")
    assert read_table(path, "x", header=lambda first: "." not in first[0]).column(0) == ["a.b", "c.d"]
    assert read_table(path, "x", header=False).column(1) == ["x", "y"]
    assert read_table(path, "x").column("a.b") == ["c.d"]


def test_a_missing_list_says_what_it_is_and_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"list\.tsv is missing: captions.*\nMake it"):
        read_table(tmp_path / "list.tsv", "captions", "Make it so")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file(write, content):
    with pytest.raises(ValueError, match=r"list\.tsv is empty: expected captions"):
        read_table(write(content), "captions")


def test_a_missing_column_is_named_with_those_there_are(write):
    path = write("caption\tpath\tcaption\na\tb\tc\n")
    table = read_table(path, "captions")
    assert table.column("path") == table.column(1) == table.column(-2) == ["b"]
    with pytest.raises(ValueError, match=r"list\.tsv has no column 'Name'.*caption.*path"):
        table.column("Name")
    with pytest.raises(ValueError, match=r"list\.tsv has several columns 'caption'"):
        table.column("caption")
    with pytest.raises(ValueError, match="needs at least 4 columns"):
        table.column(3)


def test_an_empty_cell_is_an_error_where_it_is_needed(write):
    table = read_table(write("caption\tpath\na\tb\n \tc\n"), "captions")
    with pytest.raises(ValueError, match=r"list\.tsv, line 3: the cell in column 1 is empty"):
        table.column("caption")
    assert table.column("caption", may_be_empty=True) == ["a", " "]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"a\.json is not JSON \(the classes\)"),
        ('{"a": 1, "a": 2}', "an object has the key 'a' twice"),
        ("[" * 100_000, "it is nested too deep"),
        (b'{"a": "caf\xe9"}', r"a\.json, line 1: byte 0xe9 is not UTF-8"),
    ],
)
def test_json_that_cannot_be_read(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_json(write(content, "a.json"), "the classes")


def test_json_with_a_mark_of_byte_order(write):
    assert read_json(write('{"a": 1}'.encode("utf-8-sig"), "a.json"), "the classes") == {"a": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "x is None, not a text"), (5, "x is 5"), (" ", "x is empty"), ('"\\ud83d"', "lone surrogate")],
)
def test_texts_that_are_none(value, message):
    value = json.loads(value) if isinstance(value, str) and value.startswith('"') else value
    with pytest.raises(ValueError, match=message):
        need_text(value, "x")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*videos is missing: the videos"):
        need_folder(tmp_path / "videos", "the videos")


def test_lines_are_stripped_and_end_only_at_line_ends(write):
    path = write("video1\r\n\n video2 \nvideo\u2028 3\rvideo4".encode("utf-8-sig"))
    assert numbered_lines(path, "x") == [(1, "video1"), (3, "video2"), (4, "video\u2028 3"), (5, "video4")]
    assert read_lines(path, "x") == ["video1", "video2", "video\u2028 3", "video4"]
