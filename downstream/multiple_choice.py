"""Zero-shot multiple choice: SSV2-MC.

python downstream/multiple_choice.py --dataset ssv2_mc --arch TVTSv2_B_16 --checkpoint TVTSv2_ViT_B_16.pth
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

from data_loader.base import VideoDataset
from downstream.embedder import Embedder, VideoEmbeddings
from downstream.evaluation import run_command
from downstream.options import evaluation_parser
from downstream.report import Evaluation, first_ranked
from model.metric import accuracy, label_ranks, sim_matrix
from utils.config import Config


def evaluate(
    dataset: VideoDataset, videos: VideoEmbeddings, embedder: Embedder, config: Config
) -> Evaluation:
    """Each video chooses among its own options, the nearest by cosine."""
    kept = videos.readable()
    options = dataset.options
    sentences = list(dict.fromkeys(sentence for i in kept for sentence in options[i]))
    row = {sentence: n for n, sentence in enumerate(sentences)}
    embeds = embedder.texts(sentences).double()
    queries, ranks = [], []
    for i in kept:
        sims = sim_matrix(
            videos.embeds[i : i + 1].double(), embeds[[row[sentence] for sentence in options[i]]]
        )
        answer = int(dataset.answers[i])
        ranks += label_ranks(sims, [answer])
        queries.append(
            {
                "video": dataset.video_id(i),
                "answer": options[i][answer],
                "rank": ranks[-1],
                "chosen": options[i][int(sims.argmax())],
                "similarity": round(float(sims[0, answer]), 4),
                "top": first_ranked(sims[0], options[i]),
            }
        )
    counts = {"videos": len(kept), "options": max(len(options[i]) for i in kept)}
    return Evaluation({"accuracy": {"plain": accuracy(ranks)}}, queries, counts)


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser(
        "Zero-shot multiple choice (SSV2-MC): each video against its own options.",
        "example:\n  python downstream/multiple_choice.py --dataset ssv2_mc --arch TVTSv2_B_16",
    )
    return run_command(parser.parse_args(argv), {"multiple_choice": evaluate})


if __name__ == "__main__":
    sys.exit(main())
