"""The index that is kept beside features: exact and approximate search; stale and hostile files."""

import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from downstream.feature_files import FeatureTable, write_features
from downstream.vector_search import index as search_index
from downstream.vector_search.columns import Condition
from downstream.vector_search.index import FeatureIndex, index_of
from downstream.vector_search.videos import Hit, VideoIndex

MODEL = {"arch": "TVTSv2_Demo", "checkpoint_sha256": "0" * 64}


def windows(rows: int, dim: int = 32, seed: int = 0, films: int = 20, noise: float = 0.4) -> FeatureTable:
    """Windows of films, those of one film alike, all in a cone, as embeddings are."""
    rng = np.random.default_rng(seed)
    film = np.arange(rows) * films // rows
    middle, of_film = rng.standard_normal(dim), rng.standard_normal((films, dim))
    features = 2 * middle + of_film[film] + noise * rng.standard_normal((rows, dim))
    columns = {
        "path": [f"/films/{i}.mp4" for i in film],
        "label": [["cats", "dogs", "the 'sea'"][i % 3] for i in film],
        "start": 10.0 * np.arange(rows),
        "end": 10.0 * np.arange(1, rows + 1),
        "size_bytes": 2**60 + np.arange(rows),
    }
    return FeatureTable((features * rng.uniform(0.1, 10, (rows, 1))).astype(np.float32), columns, MODEL)


def ranked(table: FeatureTable, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All rows, nearest first, and their cosines."""
    cosines = table.features @ query / np.linalg.norm(table.features, axis=1) / np.linalg.norm(query)
    return np.argsort(-cosines), cosines


@pytest.fixture
def file(tmp_path) -> Path:
    """300 windows, written a minute ago."""
    path = tmp_path / "films.safetensors"
    write_features(path, windows(300))
    age(path, 60)
    return path


def age(path: Path, seconds: float) -> None:
    changed = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(changed, changed))


def found(file: Path, query: np.ndarray, top: int = 10) -> list[int]:
    (hits,) = VideoIndex.from_files([file])[0].search(query[None], top)
    return [hit.row for hit in hits]


def test_exact_against_numpy(monkeypatch):
    """More rows than are handled at once; one film so long that each film once takes several rounds."""
    for name, small in {"BLOCK": 64, "PIECE": 16, "SCANNED": 500}.items():
        monkeypatch.setattr(search_index, name, small)
    table = windows(500, noise=0.7)
    table.columns["path"][:300] = ["/films/long.mp4"] * 300
    query = table.features[7]
    order, cosines = ranked(table, query)
    index = VideoIndex.of_table(table)
    (hits,) = index.search(query[None], 20)
    assert [hit.row for hit in hits] == order[:20].tolist()
    assert [hit.start for hit in hits] == (10.0 * order[:20]).tolist()
    np.testing.assert_allclose([hit.similarity for hit in hits], cosines[order[:20]], atol=1e-3)
    (once,) = index.search(query[None], 5, one_per_video=True)
    assert [hit.path for hit in once] == list(dict.fromkeys(table.columns["path"][i] for i in order))[:5]
    assert len(index.search(query[None], 50, one_per_video=True)[0]) == len(set(table.columns["path"]))
    assert len(index.search(query[None], 1000)[0]) == 500


@pytest.fixture
def large(monkeypatch) -> tuple[FeatureTable, VideoIndex]:
    """Ten times as many vectors as a query is compared with."""
    monkeypatch.setattr(search_index, "SCANNED", 2000)
    table = windows(20_000, films=200)
    return table, VideoIndex.of_table(table)


def test_nearly_exact_where_there_are_many(large):
    table, index = large
    (part,) = index.parts
    assert len(part.means) == 141
    rng = np.random.default_rng(1)
    queries = table.features[::200] + rng.standard_normal((100, 32)).astype(np.float32)
    same = 0
    for query in queries:
        (hits,) = index.search(query[None], 10)
        same += len({hit.row for hit in hits} & set(ranked(table, query)[0][:10].tolist()))
    assert same >= 0.98 * 1000
    rows, _ = part.scan(queries[0] / np.linalg.norm(queries[0]), 2000, None)
    assert 2000 <= len(rows) < 3000 and len(set(rows.tolist())) == len(rows)
    assert len(index.search(queries[:1], 30, one_per_video=True)[0]) == 30
    assert len(index.search(queries[:1], 5000)[0]) == 5000


def test_few_rows_that_a_filter_leaves_are_searched_exactly(large):
    table, index = large
    allowed = index.matching([Condition.parse("start<9000"), Condition.parse("label!=cats")])
    expected = [i for i in range(900) if table.columns["label"][i] != "cats"]
    assert np.flatnonzero(allowed).tolist() == expected
    query = table.features[-1]
    order = [i for i in ranked(table, query)[0].tolist() if i in set(expected)]
    assert [hit.row for hit in index.search(query[None], 10, allowed=allowed)[0]] == order[:10]
    none = np.zeros(len(index), dtype=bool)
    assert index.search(query[None], 10, allowed=none) == [[]]
    assert index.search(query[None], 10, one_per_video=True, allowed=none) == [[]]


def test_many_rows_that_a_filter_leaves(large):
    table, index = large
    allowed = index.matching([Condition.parse("label = \"the 'sea'\"")], without=[2])
    assert 6000 < allowed.sum() < 7000 and not allowed[2]
    query = table.features[2]
    order = [i for i in ranked(table, query)[0].tolist() if allowed[i]]
    rows = [hit.row for hit in index.search(query[None], 10, allowed=allowed)[0]]
    assert len(set(rows) & set(order[:10])) >= 9 and all(allowed[rows])


def test_it_is_kept_and_mapped_not_read(file):
    query = windows(300).features[5]
    before = found(file, query)
    index = file.with_name("films.safetensors.index")
    kept = index.stat()
    assert kept.st_mtime_ns == file.stat().st_mtime_ns and kept.st_mode == file.stat().st_mode
    size, changed = file.stat().st_size, file.stat().st_mtime_ns
    file.write_bytes(bytes(size))  # no features any more: who asks for them fails
    os.utime(file, ns=(changed, changed))
    assert found(file, query) == before
    maps = Path("/proc/self/maps").read_text()
    assert (opened := index_of(file)) and str(index) in Path("/proc/self/maps").read_text(), maps
    assert opened.vectors.shape == (300, 32)
    age(file, 30)
    with pytest.raises(ValueError, match="holds no extracted features"):
        index_of(file)


def test_the_same_features_with_another_time_keep_their_index(file, capsys):
    index_of(file)
    index = file.with_name("films.safetensors.index")
    kept = index.stat().st_ino
    age(file, 30)
    index_of(file)
    assert index.stat().st_ino == kept and index.stat().st_mtime_ns == file.stat().st_mtime_ns
    assert capsys.readouterr().err == ""


def test_features_that_have_just_been_written_are_compared_again(file):
    """Within a tick of the clock they could be replaced, and have the same time."""
    age(file, 0)
    index_of(file)
    assert file.with_name("films.safetensors.index").stat().st_mtime_ns != file.stat().st_mtime_ns
    write_features(file, windows(300, seed=1))
    query = windows(300, seed=1).features[5]
    assert found(file, query, 1) == [5]


@pytest.mark.parametrize("rows", [300, 301], ids=["same size", "other size"])
def test_other_features_have_another_index(file, rows, capsys):
    index_of(file)
    other = windows(rows, seed=1)
    write_features(file, other)
    assert found(file, other.features[5]) == ranked(other, other.features[5])[0][:10].tolist()
    assert "films.safetensors.index is made anew: the features have changed" in capsys.readouterr().err


def set_to(name: str, place: int, value: int):
    def change(tensors):
        tensors[name].view(-1)[place] = value

    return change


def replace(name: str, value: torch.Tensor):
    def change(tensors):
        tensors[name] = value

    return change


BROKEN = {
    "a row beyond the end": set_to("rows", 0, 300),
    "a row below 0": set_to("rows", 0, -1),
    "a row twice": set_to("rows", 0, 1),
    "a list beyond the end": set_to("offsets", 1, 10**12),
    "a list before the start": set_to("offsets", 0, -(10**12)),
    "fewer means": replace("means", torch.zeros(0, 32)),
    "means of another size": replace("means", torch.zeros(1, 8)),
    "vectors in float32": replace("vectors", torch.zeros(300, 32)),
    "fewer vectors": replace("vectors", torch.zeros(10, 32, dtype=torch.float16)),
    "flat vectors": replace("vectors", torch.zeros(300, dtype=torch.float16)),
    "a text that there is not": set_to("codes path", 3, 99),
    "a text below 0": set_to("codes path", 3, -5),
    "a text beyond the end": set_to("ends path", 3, 10**12),
    "texts in another order": set_to("ends path", 0, 50),
    "fewer numbers": replace("numbers start", torch.zeros(5)),
    "numbers that NumPy has not": replace("numbers start", torch.zeros(300, dtype=torch.bfloat16)),
    "no rows": lambda tensors: tensors.pop("rows"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_hostile_index_is_made_anew(file, broken, capsys):
    query = windows(300).features[5]
    right = found(file, query)
    index = file.with_name("films.safetensors.index")
    with safe_open(index, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(index)
    BROKEN[broken](tensors)
    save_file(tensors, index, metadata)
    os.utime(index, ns=(file.stat().st_mtime_ns,) * 2)
    assert found(file, query) == right
    assert "films.safetensors.index is made anew: " in capsys.readouterr().err
    assert found(file, query) == right
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"\xff" * 5000, b"\x02" + b"\x00" * 7 + b"{}"], ids=repr
)
def test_what_is_no_index_is_made_anew(file, content, capsys):
    index = file.with_name("films.safetensors.index")
    index.write_bytes(content)
    assert len(index_of(file)) == 300
    assert "is made anew: it cannot be read" in capsys.readouterr().err


def test_a_cut_index_is_made_anew(file, capsys):
    index_of(file)
    index = file.with_name("films.safetensors.index")
    os.truncate(index, index.stat().st_size // 2)
    assert len(index_of(file)) == 300
    assert "is made anew: it cannot be read" in capsys.readouterr().err


def test_a_folder_of_a_file_a_video(tmp_path, monkeypatch):
    """Its index lies beside it, and changes with any of its files."""
    table = windows(30)
    folder = tmp_path / "features"
    folder.mkdir()
    write_features(folder, table)

    def first(file: Path) -> Hit:
        return VideoIndex.from_files([file])[0].search(table.features[[5]], 1)[0][0]

    assert first(folder).start == 50
    kept = (tmp_path / "features.index").stat().st_ino
    monkeypatch.chdir(folder)
    assert first(Path()).start == 50
    assert (tmp_path / "features.index").stat().st_ino == kept
    shutil.rmtree(folder)
    folder.mkdir()
    write_features(folder, table.take(range(6, 30)))
    assert first(folder).start != 50


def test_a_folder_whose_files_have_changed_places(tmp_path):
    """Sizes and the latest time are the same, and not the features."""
    table = windows(30)
    table.columns["path"] = ["/a.mp4"] * 15 + ["/b.mp4"] * 15
    folder = tmp_path / "features"
    folder.mkdir()
    write_features(folder, table)
    for path in folder.iterdir():
        os.utime(path, (1, 1))

    def first() -> str:
        return VideoIndex.from_files([folder])[0].search(table.features[[5]], 1)[0][0].path

    assert first() == "/a.mp4"
    (folder / "a.npy").rename(folder / "c.npy")
    (folder / "b.npy").rename(folder / "a.npy")
    (folder / "c.npy").rename(folder / "b.npy")
    os.utime(folder / "b.npy", (0, 0))
    assert first() == "/b.mp4"


def test_a_long_text_takes_its_room_once():
    table = windows(300)
    table.columns["json"] = ["x" * 200_000] + ["y"] * 299
    tracemalloc.start()
    FeatureIndex.build(table, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25


def test_without_a_place_for_the_index_it_is_in_memory(file, capsys):
    file.with_name("films.safetensors.index").mkdir()
    query = windows(300).features[5]
    assert found(file, query, 1) == [5]
    assert f"warning: could not write {file}.index" in capsys.readouterr().err


def test_features_that_cannot_be_searched(tmp_path):
    table = windows(30)
    path = tmp_path / "broken.npz"
    write_features(path, FeatureTable(table.features[:0], {"path": []}, MODEL))
    with pytest.raises(ValueError, match=r"broken\.npz holds no vectors; extract"):
        index_of(path)
    table.features[17, 3] = np.inf
    write_features(path, table)
    with pytest.raises(ValueError, match=r"broken\.npz: the vector of /films/11\.mp4 holds NaN or infinity"):
        index_of(path)
    assert not path.with_name("broken.npz.index").exists()


def test_files_that_do_not_go_together(tmp_path):
    write_features(tmp_path / "a.npz", windows(30))
    write_features(tmp_path / "b.npz", windows(30, dim=16))
    with pytest.raises(ValueError, match=r"b\.npz holds vectors of 16 numbers, .*a\.npz of 32"):
        VideoIndex.from_files([tmp_path / "a.npz", tmp_path / "b.npz"])
    with pytest.raises(ValueError, match="is given twice"):
        VideoIndex.from_files([tmp_path / "a.npz", tmp_path / "." / "a.npz"])
    index, _ = VideoIndex.from_files([tmp_path / "a.npz"])
    with pytest.raises(ValueError, match=r"queries are \[1, 16\], expected \[Q, 32\]"):
        index.search(np.ones((1, 16), np.float32))


def test_rows_of_several_files_are_counted_on(tmp_path):
    first, second = windows(30), windows(40, seed=1)
    write_features(tmp_path / "a.npz", first)
    write_features(tmp_path / "b.parquet", second)
    index, _ = VideoIndex.from_files([tmp_path / "a.npz", tmp_path / "b.parquet"])
    assert len(index) == 70 and index.videos == 20
    (hits,) = index.search(second.features[[4]], 1)
    assert (hits[0].row, hits[0].start) == (34, 40.0)
    np.testing.assert_allclose(index.vector(34) @ index.vector(34), 1, atol=1e-3)
    with pytest.raises(ValueError, match="there is no row 70; the features have rows 0 to 69"):
        index.vector(70)


def test_columns_are_as_they_were():
    table = windows(30)
    table.columns["tokens"] = np.zeros((30, 2, 2))  # of more than a value a row
    hit = VideoIndex.of_table(table).hit(7, 0.5)
    assert hit.columns == {name: values[7] for name, values in table.columns.items() if name != "tokens"}
    assert FeatureIndex.build(table, {}).columns["size_bytes"][7] == 2**60 + 7
