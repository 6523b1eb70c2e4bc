import pickle

import pytest

from data_loader.strings import Strings


def test_strings_behave_like_a_list():
    texts = ["", "one", "naïve 視頻", "", "last", "caf\udce9"]  # a name of a file that is not UTF-8
    strings = Strings(texts)
    assert list(strings) == texts
    assert len(strings) == 6
    assert strings[-2] == "last"
    assert strings[1:3] == texts[1:3]
    assert "one" in strings
    with pytest.raises(IndexError, match="string 6 of 6"):
        strings[6]


def test_strings_of_nothing():
    assert list(Strings([])) == []
    assert not Strings([])


def test_strings_are_two_arrays_when_sent_to_a_worker():
    strings = Strings(f"caption {i}" for i in range(10_000))
    assert list(pickle.loads(pickle.dumps(strings))) == list(strings)  # noqa: S301
    assert len(vars(strings)) == 2
