"""Zero-shot action recognition: HMDB-51, UCF-101, Kinetics-400.

python downstream/recognition.py --dataset hmdb51 --arch TVTSv2_B_16 --checkpoint TVTSv2_ViT_B_16.pth
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch.nn.functional import normalize

from data_loader.dataset import VideoDataset
from data_loader.labels import LabelRecords
from downstream.commands import run_command
from downstream.evaluation import EmbeddedVideos, Protocol
from downstream.options import evaluation_parser
from downstream.prompts import prompt_templates
from downstream.report import Measurement
from model.metric import accuracy, label_ranks, sim_matrix
from utils.schema import EvaluationConfig


def class_texts(dataset: VideoDataset, config: EvaluationConfig) -> list[str]:
    """Those of the first prompt for all classes, then those of the second."""
    names = dataset.records_as(LabelRecords).class_names
    return [prompt.replace("{}", name) for prompt in prompt_templates(config.prompts) for name in names]


def measure(videos: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig) -> Measurement:
    """The class whose prompts are nearest to the video wins; logits are 100 · cosine.

    A class is the mean of its prompts' normalised embeddings.
    """
    names = videos.dataset.records_as(LabelRecords).class_names
    prompts = torch.stack([texts[text] for text in class_texts(videos.dataset, config)])
    prompts = prompts.view(-1, len(names), prompts.shape[-1])  # [prompts, classes, D]
    classes = normalize(prompts, dim=-1).mean(dim=0)
    logits = 100 * sim_matrix(videos.embeds.double(), classes.double())
    measured = classification(videos, logits)
    measured.details = {"prompts": prompt_templates(config.prompts)}
    return measured


def classification(videos: EmbeddedVideos, logits: Tensor) -> Measurement:
    """What logits [videos, classes], on the CPU, say of labelled videos: accuracy, and each one's class."""
    names, labels = videos.dataset.records_as(LabelRecords).class_names, videos.labels
    ranks = label_ranks(logits, labels)
    guesses = logits.argmax(dim=1).tolist()
    queries = [
        {"video": video, "class": names[label], "rank": rank, "predicted": names[guess]}
        for video, label, rank, guess in zip(videos.ids, labels, ranks, guesses, strict=True)
    ]
    counts = {"videos": len(queries), "classes": len(names)}
    return Measurement({"accuracy": {"plain": accuracy(ranks)}}, queries, counts)


PROTOCOL = Protocol("recognition", "recognition", LabelRecords, measure, class_texts)


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser(
        "Zero-shot action recognition (HMDB-51, UCF-101, Kinetics-400): top-1 and top-5 accuracy.",
        "examples:\n"
        "  python downstream/recognition.py --dataset hmdb51 --arch TVTSv2_B_16\n"
        "several prompts, their embeddings averaged:\n"
        """  python downstream/recognition.py --dataset k400 --set 'prompts=["a person {}", "{}"]'\n"""
        "  python downstream/recognition.py --dataset k400 --set prompts=clip-kinetics",
    )
    return run_command(parser.parse_args(argv), [PROTOCOL])


if __name__ == "__main__":
    sys.exit(main())
