"""Pictures of the samples that retrieval does best and worst on, with their own words and ranks."""

import torch

from CLIP import tokenize
from trainer.pictures import FRAMES, SHOWN, best_and_worst


def test_best_and_worst_of_a_batch():
    videos = torch.eye(6)  # of the set; the batch has those at 1, 2, 4 and 5
    texts = torch.eye(6)
    texts[2] = torch.tensor([1.0, 0.9, 0.5, 0, 0, 0])  # own video third
    texts[5] = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])  # last
    colours = torch.tensor([10, 20, 40, 50], dtype=torch.uint8)
    batch = {
        "id": ["one", "two", "four", "five"],
        "video": colours.view(4, 1, 1, 1, 1).expand(4, 12, 3, 224, 224).clone(),
        "valid_frames": torch.tensor([12, 12, 12, 2]),
        "text": tokenize(["A Dog", "b", "c", "d", "runs", "f", "g", "h"]),  # two texts a sample
    }
    shown = best_and_worst(batch, torch.tensor([1, 2, 4, 5]), texts, videos)
    best, worst = shown["best"], shown["worst"]
    assert best.words.splitlines() == [
        "- one, rank 1 of 6: a dog / runs",
        "- four, rank 1 of 6: c / g",
        "- two, rank 3 of 6: b / f",
    ]
    assert worst.words.splitlines()[0] == "- five, rank 6 of 6: d / h"
    assert best.pixels.shape == (3, SHOWN * 112, FRAMES * 112)
    assert best.pixels[:, ::112, :1].tolist() == [[[10], [40], [20]]] * 3
    assert worst.pixels[0, 0, ::112].tolist() == [50, 50, 0, 0, 0, 0]  # black where the video has ended
