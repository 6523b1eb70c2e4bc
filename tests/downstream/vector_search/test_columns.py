"""Conditions on the columns of features."""

import numpy as np
import pytest

from downstream.vector_search.columns import Condition, column_of

COLUMNS = {
    "label": column_of(["dog", "a dog", "", "Übung\udce9", "dog"]),
    "duration": column_of(np.array([1.5, 2, np.nan, -3, 1e300])),
    "size_bytes": column_of(np.array([2**60, 2**60 + 1, 0, -1, 5])),
    "good": column_of(np.array([True, False, True, False, True])),
    "my label": column_of(np.array(["x", "y", "x", "y", "z"])),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("label=dog", [0, 4]),
        ("label == 'dog'", [0, 4]),
        ('label = "a dog"', [1]),
        ("label=", [2]),
        ("label!=dog", [1, 2, 3]),
        ("label=Übung\udce9", [3]),
        ("label=do", []),
        ("label=__import__('os')", []),
        ("my label=x", [0, 2]),
        ("duration>1.5", [1, 4]),
        ("duration >= 1.5", [0, 1, 4]),
        ("duration<0", [3]),
        ("duration<=2", [0, 1, 3]),
        ("duration=2", [1]),
        ("size_bytes=1152921504606846977", [1]),
        ("size_bytes<1e3", [2, 3, 4]),
        (f"size_bytes<{10**30}", [0, 1, 2, 3, 4]),
        ("good=true", [0, 2, 4]),
        ("good=0", [1, 3]),
    ],
)
def test_conditions(text, rows):
    condition = Condition.parse(text)
    assert np.flatnonzero(condition.rows(COLUMNS, "films.npz")).tolist() == rows


@pytest.mark.parametrize("text", ["label", "=dog", "", "label dog", "> 3"])
def test_what_is_no_condition(text):
    with pytest.raises(ValueError, match="is no condition; write COLUMN=VALUE"):
        Condition.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lable=dog", "films.npz has no column 'lable'; did you mean 'label'"),
        ("label>3", "column 'label' of films.npz: it holds texts"),
        ("duration=long", "column 'duration' of films.npz: it holds numbers, and 'long' is none"),
        ("duration=", "it holds numbers, and '' is none"),
    ],
)
def test_conditions_that_make_no_sense(text, message):
    with pytest.raises(ValueError, match=message):
        Condition.parse(text).rows(COLUMNS, "films.npz")


def test_values_come_back():
    assert [COLUMNS["label"][i] for i in range(5)] == ["dog", "a dog", "", "Übung\udce9", "dog"]
    assert COLUMNS["label"].texts() == ["dog", "a dog", "", "Übung\udce9"]
    assert COLUMNS["size_bytes"][1] == 2**60 + 1 and COLUMNS["good"][0] is True
    assert column_of(np.array(["2024-01-02"], dtype="datetime64[D]"))[0] == "2024-01-02"
