"""Zero-shot text-to-video and video-to-text retrieval: recall at 1, 5, 10 and 50, and the ranks.

python downstream/retrieval.py --dataset msrvtt --arch TVTSv2_B_16 --dsl
python downstream/retrieval.py --dataset captions --set data.root=videos --set data.files=captions.csv
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from data_loader.dataset import VideoDataset
from data_loader.records import CaptionRecords
from downstream.commands import run_command
from downstream.options import evaluation_parser
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.report import Measurement, first_ranked
from downstream.report.trust import Statistic, tied
from model.metric import rank_metrics, retrieval_ranks, sim_matrix, t2v_ranks, v2t_ranks
from utils.schema import EvaluationConfig

T = TypeVar("T")


def captions(dataset: VideoDataset, config: EvaluationConfig) -> list[str]:
    return list(dataset.records_as(CaptionRecords).captions)


def measure(videos: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig) -> Measurement:
    """Rank all videos for each caption, and all captions for each video, by cosine; plain and with DSL.

    Videos that could not be read are left out with their captions.
    """
    records, ids = videos.dataset.records_as(CaptionRecords), videos.ids
    column = {video: i for i, video in enumerate(videos.indices)}
    pairs = [
        (records.captions[i], column[int(video)])
        for i, video in enumerate(records.caption_video)
        if int(video) in column
    ]
    captions, owner = [caption for caption, _ in pairs], [video for _, video in pairs]

    embeds = torch.stack([texts[caption] for caption in captions])
    sims = sim_matrix(embeds.double(), videos.embeds.double())  # [captions, videos]
    for_texts, for_videos = dual_softmax(sims, config.dsl_temperature)
    all_ranks = {
        "text to video": {
            "plain": of_groups(t2v_ranks, sims, owner),
            "dsl": of_groups(t2v_ranks, for_texts, owner),
        },
        "video to text": {
            "plain": of_groups(v2t_ranks, best_of_own(sims, owner), owner),
            "dsl": of_groups(v2t_ranks, best_of_own(for_videos, owner), owner),
        },
    }
    metrics = {way: {k: rank_metrics(r) for k, r in kinds.items()} for way, kinds in all_ranks.items()}
    statistics = {way: {k: _of_drawn(r) for k, r in kinds.items()} for way, kinds in all_ranks.items()}
    ranks, dsl_ranks = retrieval_ranks(sims, owner), retrieval_ranks(for_texts, owner)
    queries = [
        {
            "caption": caption,
            "video": ids[video],
            "rank": rank,
            "dsl_rank": dsl_rank,
            "similarity": round(float(row[video]), 4),
            "top": first_ranked(row, ids),
        }
        for caption, video, rank, dsl_rank, row in zip(captions, owner, ranks, dsl_ranks, sims, strict=True)
    ]
    videos_of: dict[str, set[int]] = {}
    for caption, video in pairs:
        videos_of.setdefault(caption, set()).add(video)
    times = Counter(pairs)
    ties = {
        "captions of several videos": sum(len(videos_of[caption]) > 1 for caption in captions),
        "captions that a video has twice": sum(times[pair] > 1 for pair in pairs),
        "tied captions": tied(sims, owner),
    }
    counts = {"videos": len(ids), "captions": len(captions)}
    return Measurement(metrics, queries, counts, statistics=statistics, ties=ties)


def _of_drawn(ranks: np.ndarray) -> tuple[Statistic, int]:
    return lambda drawn: rank_metrics(ranks[drawn]), len(ranks)


def dual_softmax(sims: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Similarities [texts, videos] re-weighted by a softmax over the axis that is not ranked.

    This is the dual softmax (DSL) of CAMoE, arXiv 2109.04290. Returns one matrix to rank videos by (softmax
    over the texts) and one to rank texts by (over the videos): a video that is near every text then counts
    less for each. It needs all queries at once.
    """
    return sims * (sims / temperature).softmax(dim=0), sims * (sims / temperature).softmax(dim=1)


def best_of_own(sims: Tensor, owner: Sequence[int]) -> Tensor:
    """sims [captions, V] in which a video's captions but its best do not compete for it: its second copy of
    the right caption is right, too, and no tie."""
    best: dict[int, int] = {}
    for caption, video in enumerate(owner):
        if video not in best or sims[caption, video] > sims[best[video], video]:
            best[video] = caption
    others = [(caption, video) for caption, video in enumerate(owner) if best[video] != caption]
    if not others:
        return sims
    sims = sims.clone()
    sims[tuple(map(list, zip(*others, strict=True)))] = -torch.inf
    return sims


def of_groups(metrics: Callable[..., T], sims: Tensor, owner: Sequence[int]) -> T:
    """What t2v_metrics or its like says of sims [captions, V], caption i being one of video owner[i].

    Its rows go by video, as many for each; where a video has fewer captions the rest is masked.
    """
    num_videos = sims.shape[1]
    captions_of: list[list[int]] = [[] for _ in range(num_videos)]
    for caption, video in enumerate(owner):
        captions_of[video].append(caption)
    per_video = max(map(len, captions_of))
    rows = np.zeros((num_videos * per_video, num_videos))
    mask = np.zeros(num_videos * per_video, dtype=bool)
    for video, captions in enumerate(captions_of):
        first = video * per_video
        rows[first : first + len(captions)] = sims[captions].numpy()
        mask[first : first + len(captions)] = True
    return metrics(rows, query_masks=mask)


PROTOCOL = Protocol("retrieval", "retrieval", CaptionRecords, measure, captions, windows=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser("python downstream/retrieval.py", __doc__)
    return run_command(parser.parse_args(argv), [PROTOCOL])


if __name__ == "__main__":
    sys.exit(main())
