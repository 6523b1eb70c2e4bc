"""Heads in two pieces: how they are split. The kernels' tests compute with them."""

import pytest

split_head = pytest.importorskip(
    "model.kernels.triton_heads", reason="Triton is for NVIDIA's GPUs"
).split_head


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (8, (16, 0)),
        (20, (32, 0)),
        (48, (64, 0)),
        (64, (64, 0)),
        (65, (64, 16)),
        (80, (64, 16)),
        (88, (64, 32)),
        (96, (64, 32)),
        (97, (128, 0)),
        (128, (128, 0)),
    ],
)
def test_a_head_is_split_where_that_saves_columns(size, pieces):
    assert split_head(size) == pieces
