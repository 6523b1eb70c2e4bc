"""Zero-shot action recognition: HMDB-51, UCF-101, Kinetics-400.

python downstream/recognition.py --dataset hmdb51 --arch TVTSv2_B_16 --checkpoint TVTSv2_ViT_B_16.pth
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch
from torch.nn.functional import normalize

from data_loader.base import VideoDataset
from downstream.embedder import Embedder, VideoEmbeddings
from downstream.evaluation import run_command
from downstream.options import evaluation_parser
from downstream.report import Evaluation
from model.metric import accuracy, label_ranks, sim_matrix
from utils.config import Config


def evaluate(
    dataset: VideoDataset, videos: VideoEmbeddings, embedder: Embedder, config: Config
) -> Evaluation:
    """The class whose prompt is nearest to the video wins; logits are 100 · cosine."""
    kept = videos.readable()
    classes = class_embeddings(dataset.class_names, config["prompts"], embedder)
    logits = 100 * sim_matrix(videos.embeds[kept].double(), classes.double())
    labels = [int(dataset.labels[i]) for i in kept]
    queries = class_queries([dataset.video_id(i) for i in kept], labels, logits, dataset.class_names)
    counts = {"videos": len(kept), "classes": len(dataset.class_names)}
    ranks = [query["rank"] for query in queries]
    return Evaluation({"accuracy": {"plain": accuracy(ranks)}}, queries, counts)


def class_queries(
    ids: Sequence[str], labels: Sequence[int], logits: torch.Tensor, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Each row of logits [videos, classes], on the CPU: the true class, its place, the class predicted."""
    guesses = logits.argmax(dim=1).tolist()
    return [
        {"video": video, "class": names[label], "rank": rank, "predicted": names[guess]}
        for video, label, rank, guess in zip(ids, labels, label_ranks(logits, labels), guesses, strict=True)
    ]


def class_embeddings(names: Sequence[str], prompts: Sequence[str], embedder: Embedder) -> torch.Tensor:
    """[classes, D]: the embeddings of each prompt with the class put in, normalised, then averaged."""
    embeds = embedder.texts([prompt.replace("{}", name) for prompt in prompts for name in names])
    return normalize(embeds.view(len(prompts), len(names), -1), dim=-1).mean(dim=0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser(
        "Zero-shot action recognition (HMDB-51, UCF-101, Kinetics-400): top-1 and top-5 accuracy.",
        "examples:\n"
        "  python downstream/recognition.py --dataset hmdb51 --arch TVTSv2_B_16\n"
        "several prompts, their embeddings averaged:\n"
        """  python downstream/recognition.py --dataset k400 --set 'prompts=["a person {}", "{}"]'""",
    )
    return run_command(parser.parse_args(argv), {"recognition": evaluate})


if __name__ == "__main__":
    sys.exit(main())
