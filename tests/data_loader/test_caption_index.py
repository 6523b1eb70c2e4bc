import collections
import os
import pickle

import numpy as np
import pytest

from data_loader.caption_index import read_index


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("number", [int, np.int64, np.int32, np.uint8])
def test_reads_plain_and_numpy_integers(tmp_path, protocol, number):
    index = {"video7": number(3), "video8": number(0)}
    path = tmp_path / "index.pkl"
    path.write_bytes(pickle.dumps(index, protocol))
    assert read_index(path) == {"video7": 3, "video8": 0}
    path.write_bytes(pickle.dumps(collections.OrderedDict(index), protocol))
    assert read_index(path) == {"video7": 3, "video8": 0}


def test_reads_what_python_2_wrote(tmp_path):
    path = tmp_path / "index.pkl"
    path.write_bytes(b"(dp0\nS'video7'\np1\nI3\ns.")
    assert read_index(path) == {"video7": 3}


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("made_by_a_pickle",)


def test_runs_nothing_that_a_pickle_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "index.pkl"
    path.write_bytes(pickle.dumps({"video7": Malicious()}))
    with pytest.raises(ValueError, match=r"index\.pkl is not a pickled dict.*mkdir"):
        read_index(path)
    assert not (tmp_path / "made_by_a_pickle").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({"a": "b"}),
        pickle.dumps({"a": np.float64(1)}),
        pickle.dumps({"a": np.arange(3)}),
        pickle.dumps({"a": 1})[:-3],
    ],
)
def test_anything_else_is_a_value_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "index.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.pkl is not a pickled dict"):
        read_index(path)
