"""When rows are saved, and what is done about parts that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
import torch

from downstream.embedding import resumable_table
from downstream.embedding.resumable_table import ResumableTable
from downstream.feature_files import FeatureTable, load_features
from utils.processes import DistContext

ALONE = DistContext(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
KEYS = [(text,) for text in "abcd"]


def rows(texts: str) -> FeatureTable:
    features = np.array([[ord(text), 1] for text in texts], dtype=np.float32)
    return FeatureTable(features, {"text": list(texts)}, {})


def table(folder: Path, **options: object) -> ResumableTable:
    return ResumableTable(folder / "out.npz", options.pop("metadata", {"model": "x"}), ALONE, **options)


def parts(folder: Path) -> list[Path]:
    return sorted((folder / "out.npz.parts").glob("*.safetensors"))


@pytest.fixture
def stopped(tmp_path) -> Path:
    """A folder where a run was stopped when it had embedded "a" and "b"."""
    with pytest.raises(RuntimeError, match="stopped"), table(tmp_path) as begun:
        assert begun.start(KEYS) == [0, 1, 2, 3]
        begun.add(rows("ab"))
        raise RuntimeError("stopped")
    assert len(parts(tmp_path)) == 1
    return tmp_path


def test_rows_are_saved_by_time_and_by_size(tmp_path, monkeypatch):
    with table(tmp_path) as begun:
        begun.start(KEYS)
        begun.add(rows("a"))
        assert parts(tmp_path) == []  # within half a minute
        monkeypatch.setattr(resumable_table, "SAVE_EVERY_S", 0)
        begun.add(rows("b"))
        (part,) = parts(tmp_path)
        assert load_features(part).columns["text"] == ["a", "b"]
        monkeypatch.undo()
        begun.add(rows("c"))
        assert len(parts(tmp_path)) == 1
        monkeypatch.setattr(resumable_table, "BUFFER_BYTES", 8)
        begun.add(rows("d"))
        assert len(parts(tmp_path)) == 2
        assert begun.finish().columns["text"] == [*"abcd"]
    assert load_features(tmp_path / "out.npz").features[:, 0].tolist() == [97, 98, 99, 100]
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_a_stopped_run_goes_on_in_the_order_asked_for(stopped):
    with table(stopped) as begun:
        assert begun.start(KEYS[::-1]) == [0, 1]
        begun.add(rows("dc"))
        assert begun.finish().columns["text"] == [*"dcba"]


def test_a_damaged_part_is_made_again(stopped, capsys):
    (part,) = parts(stopped)
    part.write_bytes(part.read_bytes()[:50])
    with table(stopped) as begun:
        assert begun.start(KEYS) == [0, 1, 2, 3]
        begun.add(rows("abcd"))
        assert begun.finish().columns["text"] == [*"abcd"]
    assert f"warning: its rows are made again: {part} holds no extracted features" in capsys.readouterr().err


def test_other_settings_are_refused_or_replaced(stopped, capsys):
    refused = pytest.raises(ValueError, match=r"model 'x' \(now 'y'\).*--overwrite")
    with refused, table(stopped, metadata={"model": "y"}) as begun:
        begun.start(KEYS)
    assert len(parts(stopped)) == 1
    with table(stopped, metadata={"model": "y"}, disposable=True) as begun:
        assert begun.start(KEYS) == [0, 1, 2, 3]
        begun.add(rows("abcd"))
        assert begun.finish().metadata == {"model": "y"}
    assert "embedded anew: " in capsys.readouterr().err


def test_a_run_that_made_nothing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), table(tmp_path) as begun:
        begun.start(KEYS)
        raise RuntimeError
    with table(tmp_path) as begun:
        begun.start(KEYS)
        assert begun.finish(failed=range(4)) is None
    assert list(tmp_path.iterdir()) == []


def test_failed_rows_are_left_out_and_kept_from_before(tmp_path):
    with table(tmp_path) as begun:
        begun.start(KEYS)
        begun.add(rows("abcd"))
        begun.finish()
    with table(tmp_path) as begun:
        assert begun.start([("e",), ("f",), ("b",)]) == [0, 1]
        begun.add(rows("f"))
        assert begun.finish(failed=[0]).columns["text"] == ["f", "b"]
    assert load_features(tmp_path / "out.npz").columns["text"] == ["a", "c", "d", "f", "b"]
