"""Feature tables on disk, and the clips that their rows are of."""

import contextlib
import os
import sys
import zipfile

import numpy as np
import pytest

from downstream.embedding.clips import Clip
from downstream.feature_files import (
    FeatureTable,
    check_format,
    hdf5,
    join_tables,
    load_features,
    write_features,
)
from tests.extras import extra


@pytest.fixture(params=[".safetensors", ".npz", ".parquet", ".h5"])
def suffix(request) -> str:
    if request.param == ".h5":
        extra("h5py")
    return request.param


def test_a_table_comes_back_as_it_was(suffix, tmp_path):
    columns = {
        "path": ["a b.mp4", "ü,\n.mp4"],
        "duration": np.array([1.5, np.nan]),
        "num_frames": np.array([3, 4]),
        "file": ["x", os.fsdecode(b"caf\xe9")],  # a name that np.savez could not take
        "seen": np.array([True, False]),
    }
    table = FeatureTable(np.arange(6, dtype=np.float32).reshape(2, 3), columns, {"arch": "x", "window": None})
    write_features(tmp_path / f"t{suffix}", table)
    back = load_features(tmp_path / f"t{suffix}")
    np.testing.assert_array_equal(back.features, table.features)
    assert back.columns["path"] == columns["path"] and back.metadata == table.metadata
    np.testing.assert_array_equal(back.columns["duration"], columns["duration"])
    assert back.columns["num_frames"].dtype == np.int64
    assert back.columns["file"] == columns["file"] and back.columns["seen"].tolist() == [True, False]
    rest = load_features(tmp_path / f"t{suffix}", without=("path", "duration", "seen", "file"))
    assert set(rest.columns) == {"num_frames"}
    assert [path.name for path in tmp_path.iterdir()] == [f"t{suffix}"]
    twice = join_tables([table, back]).take([3, 0])
    assert twice.columns["path"] == ["ü,\n.mp4", "a b.mp4"]
    np.testing.assert_array_equal(twice.features, [[3, 4, 5], [0, 1, 2]])


def test_a_table_of_any_format_as_pandas(suffix, tmp_path):
    columns = {"path": ["a.mp4", "b.mp4"], "duration": np.array([1.5, 2.0])}
    write_features(
        tmp_path / f"t{suffix}",
        FeatureTable(np.arange(6, dtype=np.float32).reshape(2, 3), columns, {"arch": "x"}),
    )
    frame = load_features(tmp_path / f"t{suffix}").to_pandas()
    assert frame["path"].tolist() == ["a.mp4", "b.mp4"] and frame["duration"].tolist() == [1.5, 2.0]
    np.testing.assert_array_equal(np.stack(frame["features"]), [[0, 1, 2], [3, 4, 5]])
    assert frame.attrs == {"arch": "x"}


def test_tables_of_other_columns_are_not_joined():
    one = FeatureTable(np.zeros((1, 2), np.float32), {"path": ["a.mp4"]}, {})
    other = FeatureTable(np.zeros((1, 2), np.float32), {"text": ["a dog"]}, {})
    with pytest.raises(ValueError, match="columns text and path cannot be joined"):
        join_tables([one, other])


def test_a_table_with_tokens_as_pandas():
    tokens = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    frame = FeatureTable(tokens[:, 0], {"path": ["a", "b"], "tokens": tokens}, {}).to_pandas()
    np.testing.assert_array_equal(frame["tokens"][1], tokens[1])


def test_a_strange_file_is_no_table(suffix, tmp_path):
    (tmp_path / f"t{suffix}").write_bytes(b"something else, and long enough to be looked at")
    with pytest.raises(ValueError):
        load_features(tmp_path / f"t{suffix}")


def test_a_clip_knows_the_state_of_its_file_or_shard(tmp_path):
    shard = tmp_path / "val-0.tar"
    shard.write_bytes(b"x" * 100)
    state = (100, shard.stat().st_mtime_ns)
    assert Clip.of_file(shard).key == (str(shard), *state)
    assert Clip.of_file(shard / "a.mp4").key == (str(shard / "a.mp4"), *state)
    assert Clip.of_file(tmp_path / "gone/a.mp4").key == (str(tmp_path / "gone/a.mp4"), -1, -1)


def test_hdf5_that_leads_elsewhere_or_promises_too_much(tmp_path):
    h5py = extra("h5py")
    table = FeatureTable(np.zeros((2, 3), np.float32), {"path": ["a", "b"]}, {"arch": "x"})

    def damaged(change):
        write_features(tmp_path / "t.h5", table)
        with h5py.File(tmp_path / "t.h5", "a") as file:
            change(file)
        with pytest.raises(ValueError, match=r"t\.h5 holds no extracted features"):
            load_features(tmp_path / "t.h5")

    write_features(tmp_path / "other.h5", table)
    for link in (h5py.ExternalLink("other.h5", "features"), h5py.SoftLink("/features")):
        damaged(lambda file, link=link: file.__setitem__("more", link))
    damaged(lambda file: file.create_group("more"))
    damaged(lambda file: file.create_dataset("more", shape=(2, 2**40), dtype="f4", chunks=(1, 2**20)))
    damaged(lambda file: file.create_dataset("more", (2,), "f4", external=[(tmp_path / "other.h5", 0, 8)]))
    damaged(lambda file: file.attrs.__delitem__("facts"))
    damaged(lambda file: file.__setitem__("more", np.zeros(3)))


def test_hdf5_without_its_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    for call in (check_format, lambda path: hdf5.read(path, ())):
        with pytest.raises(ValueError, match=r"an \.h5 file needs the package h5py: pip install h5py"):
            call(tmp_path / "x.h5")


def test_damaged_files_are_named(tmp_path, suffix):
    """Whatever a byte becomes, the file is read, or a ValueError says that it is no table."""
    path = tmp_path / f"t{suffix}"
    write_features(path, FeatureTable(np.ones((3, 4), np.float32), {"path": ["a", "ä", "b"]}, {"arch": "x"}))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(len(whole), size=150).tolist() if suffix not in (".h5", ".hdf5") else []:
        for content in (whole[:place], whole[:place] + b"\xc3" + whole[place + 1 :]):
            path.write_bytes(content)
            with contextlib.suppress(ValueError):
                load_features(path)


def test_an_npz_that_promises_too_much(tmp_path):
    path, about = tmp_path / "t.npz", {"descr": "<f4", "fortran_order": False, "shape": (2**50, 4)}
    with zipfile.ZipFile(path, "w") as archive, archive.open("features.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, about)
    with pytest.raises(ValueError, match="claims to be"):
        load_features(path)


def test_a_clip_of_a_folder_of_frames_knows_their_state(tmp_path):
    frame = tmp_path / "v" / "1.png"
    frame.parent.mkdir()
    frame.write_bytes(b"one")
    before = Clip.of_file(frame.parent)
    frame.write_bytes(b"other")  # which leaves the folder's own time alone
    assert before.size_bytes == 3 and Clip.of_file(frame.parent).size_bytes == 5
