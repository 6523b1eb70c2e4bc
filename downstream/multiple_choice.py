"""Zero-shot multiple choice: each video against its own options, as in SSV2-MC.

python downstream/multiple_choice.py --dataset ssv2_mc --arch TVTSv2_B_16
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from data_loader.dataset import VideoDataset
from data_loader.multiple_choice import QuestionRecords
from downstream.commands import run_command
from downstream.options import evaluation_parser
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.report import Measurement, first_ranked
from downstream.report.trust import Statistic, tied
from model.metric import accuracy, label_ranks, sim_matrix
from utils.schema import EvaluationConfig


def all_options(dataset: VideoDataset, config: EvaluationConfig) -> list[str]:
    return list(dataset.records_as(QuestionRecords).sentences)


def measure(videos: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig) -> Measurement:
    """Each video chooses among its own options, the nearest by cosine."""
    records = videos.dataset.records_as(QuestionRecords)
    queries: list[dict[str, Any]] = []
    ties = 0
    for i, name, embed in zip(videos.indices, videos.ids, videos.embeds, strict=True):
        options, answer = records.options(i), int(records.answers[i])
        embeds = torch.stack([texts[option] for option in options])
        sims = sim_matrix(embed[None].double(), embeds.double())  # [1, options]
        ties += tied(sims, [answer])
        queries.append(
            {
                "video": name,
                "answer": options[answer],
                "rank": label_ranks(sims, [answer])[0],
                "chosen": options[int(sims.argmax())],
                "similarity": round(float(sims[0, answer]), 4),
                "top": first_ranked(sims[0], options),
            }
        )
    counts = {"videos": len(queries), "options": max(len(records.options(i)) for i in videos.indices)}
    ranks = np.array([query["rank"] for query in queries])
    metrics = {"accuracy": {"plain": accuracy(ranks)}}
    statistics: dict[str, dict[str, tuple[Statistic, int]]] = {
        "accuracy": {"plain": (lambda drawn: accuracy(ranks[drawn]), len(ranks))}
    }
    return Measurement(metrics, queries, counts, statistics=statistics, ties={"tied videos": ties})


PROTOCOL = Protocol("multiple_choice", "multiple_choice", QuestionRecords, measure, all_options)


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser("python downstream/multiple_choice.py", __doc__)
    return run_command(parser.parse_args(argv), [PROTOCOL])


if __name__ == "__main__":
    sys.exit(main())
