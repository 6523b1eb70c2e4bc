"""Pickles read as data: nothing that they name is run, and none hangs, crashes or fills the memory."""

import io
import os
import pickle
import tracemalloc
from collections import OrderedDict

import pytest

from utils.inert_pickle import DAMAGED, Record, check_file, load_plain

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(content):
    return load_plain(io.BytesIO(content))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_come_out_as_they_went_in(protocol):
    shared = ["shared"]
    value = {
        "numbers": [1, -2, 2**40, 1.5, True, None],
        "texts": ("ä", "", "b" * 300),
        "nested": {"a": [(1, 2, (3, ()))]},
        "bytes": b"\0\xff",
        "many": list(range(3000)),
        "twice": [shared] * 2,
    }
    if protocol < 3:
        del value["bytes"]  # there they are a call of a function
    loaded = load(pickle.dumps(value, protocol))
    assert loaded == value
    assert loaded["twice"][0] is loaded["twice"][1]


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),), {"state": 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_named_becomes_a_record_and_is_not_called(tmp_path, protocol):
    loaded = load(pickle.dumps({"a": Attack(tmp_path / "made"), "b": OrderedDict(x=1)}, protocol))
    assert not (tmp_path / "made").exists()
    assert isinstance(loaded["a"], Record)
    assert loaded["a"].named.endswith(".mkdir")
    assert loaded["a"].args == (str(tmp_path / "made"),)
    assert loaded["a"].state == {"state": 1}
    assert loaded["b"].named == "collections.OrderedDict"


def test_several_pickles_of_one_file_are_read_one_after_the_other():
    file = io.BytesIO(pickle.dumps([1]) + pickle.dumps({"a": 2}) + b"rest")
    assert [load_plain(file), load_plain(file)] == [[1], {"a": 2}]
    assert file.read() == b"rest"


NESTED_KEY = b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."  # {((((…),),),): 1}: its hash recurses
DOUBLED = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s."  # a key of 2 ** 60 values, shared
HOSTILE = {
    "nested tuples": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "nested tuples as a key": NESTED_KEY,
    "nested lists": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
    "doubled tuples as a key": DOUBLED,
    "bytearray of 20 GB": b"\x80\x05\x96" + (20 * 2**30).to_bytes(8, "little") + b"abc.",
    "bytes of 20 GB": b"\x80\x04\x8e" + (20 * 2**30).to_bytes(8, "little") + b"abc.",
    "text of 20 GB": b"\x80\x04\x8d" + (20 * 2**30).to_bytes(8, "little") + b"abc.",
    "number of 2 GB": b"\x80\x02\x8b" + (2**31 - 1).to_bytes(4, "little") + b"abc.",
    "frame of 20 GB": b"\x80\x04\x95" + (20 * 2**30).to_bytes(8, "little") + b"N.",
    "memo of 4 billion": b"\x80\x02Nr" + (2**32 - 1).to_bytes(4, "little") + b".",
    "memo without end": b"N" + b"p" + b"9" * 4000 + b"\n.",
    "decimal without end": b"L" + b"9" * 100_000 + b"L\n.",
    "extension code": b"\x80\x02\x82\x01.",
    "buffer of another": b"\x80\x05\x97.",
    "nothing to take": b"\x80\x02e.",
    "no mark": b"\x80\x02Nt.",
    "unknown memo": b"\x80\x02h\x05.",
    "cut": pickle.dumps({"a": [1, 2, 3]})[:-4],
    "empty": b"",
    "text": b"no pickle at all",
    "key that has no hash": b"\x80\x02}]K\x01s.",
}


@pytest.mark.heavy
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_are_refused_in_bounded_memory(content):
    tracemalloc.start()
    try:
        with pytest.raises(DAMAGED):
            load(content)
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()


def test_a_large_flat_value_is_no_bomb():
    value = {f"name {i}": (i, float(i)) for i in range(100_000)}
    assert load(pickle.dumps(value)) == value


def test_check_file_lets_regular_files_pass_alone(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert check_file(tmp_path / "link") == tmp_path / "link"
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("dangling", "nowhere", "file/below"):
        with pytest.raises(FileNotFoundError, match=name):
            check_file(tmp_path / name)
    with pytest.raises(ValueError, match=r"pipe is no file, but a pipe, socket or device"):
        check_file(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is no file, but a folder"):
        check_file(tmp_path)
