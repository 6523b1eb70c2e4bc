import pickle

import pytest

from data_loader.strings import Strings


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
