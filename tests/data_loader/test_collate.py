import pytest
import torch

from data_loader.collate import Collate
from data_loader.failures import Failure


def item(index: int, texts: list[str], **more) -> dict:
    video = torch.full((2, 3, 4, 4), index, dtype=torch.uint8)
    common = {
        "video": video,
        "valid_frames": 2 - index % 2,
        "index": index,
        "id": f"v{index}",
        "failures": [],
    }
    return {**common, "text": texts, **more}


def tokenize(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[len(text)] for text in texts])


def test_texts_are_clip_major():
    items = [item(0, ["a0", "b0", "c0"]), item(1, ["a1", "b1", "c1"])]
    assert Collate()(items)["text"] == ["a0", "a1", "b0", "b1", "c0", "c1"]
    ids = Collate(tokenize)([item(0, ["1", "333"]), item(1, ["22", "4444"])])["text"]
    assert ids.tolist() == [[1], [2], [3], [4]]


def test_tensors_are_stacked_and_failures_pooled():
    items = [
        item(0, ["a"], keep_ind=torch.tensor([3, 1]), label=5, failures=[("x", "broken")]),
        item(1, ["b"], keep_ind=torch.tensor([0, 2]), label=6, problems=("times out of order",)),
    ]
    batch = Collate()(items)
    assert batch["video"].shape == (2, 2, 3, 4, 4)
    assert batch["video"].dtype == torch.uint8
    assert batch["keep_ind"].tolist() == [[3, 1], [0, 2]]
    assert batch["valid_frames"].tolist() == [2, 1]
    assert batch["index"].tolist() == [0, 1]
    assert batch["label"].tolist() == [5, 6]
    assert batch["id"] == ["v0", "v1"]
    assert batch["failures"] == [("x", "broken")]
    assert batch["problems"] == ["times out of order"]
    assert batch["missing"] == []


def test_missing_videos_leave_a_note():
    note = {"index": 7, "id": "v7", "missing": Failure("v7.mp4", "no such file")}
    batch = Collate()([item(0, ["a"]), note])
    assert batch["index"].tolist() == [0]
    assert batch["missing"] == [("v7.mp4", "no such file")]
    empty = Collate()([note])
    assert "video" not in empty
    assert empty["missing"] == [("v7.mp4", "no such file")]
    assert len(empty["index"]) == 0


def test_without_texts_there_is_no_text():
    assert "text" not in Collate(tokenize)([item(0, [])])


def test_different_numbers_of_texts_are_an_error():
    with pytest.raises(ValueError, match=r"different numbers of texts: \[1, 2\]"):
        Collate()([item(0, ["a"]), item(1, ["a", "b"])])
