import json

import pytest
import torch

import CLIP
import OpenCLIP
from tests.model.golden import GOLDEN

CASES = json.loads((GOLDEN / "data.json").read_text())["tokenizer"]


@pytest.mark.parametrize(("package", "column"), [(CLIP, "clip"), (OpenCLIP, "openclip")])
def test_golden_token_ids(package, column):
    ids = package.tokenize([case["text"] for case in CASES])
    assert ids.dtype == torch.int64
    assert ids.tolist() == [case[column] for case in CASES]


def test_one_text_and_no_text():
    assert CLIP.tokenize("a dog").shape == (1, 77)
    assert CLIP.tokenize([]).shape == (0, 77)
