"""Tokens on the disk: what is not whole any more is made again."""

import os

import numpy as np
import pytest
import torch

from downstream.embedding.token_cache import TokenCache
from downstream.feature_files import FeatureTable
from utils.processes import DistContext

CONTEXT = DistContext(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
KEYS = [("/a.mp4", 1, 2), ("/b.mp4", 3, 4)]


@pytest.mark.parametrize("name", ["tokens.bin", "done.bin"])
@pytest.mark.parametrize("left", [None, 1])
def test_a_file_that_is_gone_or_cut(name, left, tmp_path):
    columns = {"path": ["/a.mp4", "/b.mp4"], "size_bytes": np.array([1, 3]), "modified_ns": np.array([2, 4])}
    columns["tokens"] = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    rows = FeatureTable(np.zeros((2, 1), np.float32), columns, {})

    def pending() -> list[int]:
        with TokenCache(tmp_path, (2, 3), {"arch": "x"}, CONTEXT) as cache:
            found = cache.start(KEYS)
            if found:
                cache.add(rows)
            cache.finish()
            np.testing.assert_array_equal(cache.read([1])[0], columns["tokens"][1])
        return found

    assert pending() == [0, 1] and pending() == []
    if left is None:
        (tmp_path / name).unlink()
    else:
        os.truncate(tmp_path / name, left)
    assert pending() == [0, 1] and pending() == []
