"""Zero-shot text-to-video and video-to-text retrieval: MSR-VTT, DiDeMo, LSMDC.

python downstream/retrieval.py --dataset msrvtt --arch TVTSv2_B_16 --checkpoint TVTSv2_ViT_B_16.pth
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import numpy as np
import torch

from data_loader.base import VideoDataset
from downstream.embedder import Embedder, VideoEmbeddings
from downstream.evaluation import run_command
from downstream.options import evaluation_parser
from downstream.report import Evaluation, first_ranked
from model.metric import retrieval_ranks, sim_matrix, t2v_metrics, v2t_metrics
from utils.config import Config


def evaluate(
    dataset: VideoDataset, videos: VideoEmbeddings, embedder: Embedder, config: Config
) -> Evaluation:
    """Rank all videos for each caption, and all captions for each video, by cosine; plain and with DSL.

    Videos that could not be read are left out with their captions.
    """
    kept = videos.readable()
    column = {video: i for i, video in enumerate(kept)}
    pairs = [
        (dataset.captions[i], column[int(video)])
        for i, video in enumerate(dataset.caption_video)
        if int(video) in column
    ]
    captions, owner = [caption for caption, _ in pairs], [video for _, video in pairs]

    sims = sim_matrix(embedder.texts(captions).double(), videos.embeds[kept].double())
    for_texts, for_videos = dual_softmax(sims, config["dsl_temperature"])
    metrics = {
        "text to video": {
            "plain": text_to_video(sims, owner),
            "dsl": text_to_video(for_texts, owner),
        },
        "video to text": {
            "plain": video_to_text(sims, owner),
            "dsl": video_to_text(for_videos, owner),
        },
    }
    ids = [dataset.video_id(i) for i in kept]
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
    return Evaluation(metrics, queries, {"videos": len(kept), "captions": len(captions)})


def dual_softmax(sims: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities [texts, videos] re-weighted by a softmax over the axis that is not ranked.

    This is the dual softmax (DSL) of CAMoE, arXiv 2109.04290. Returns one matrix to rank videos by (softmax
    over the texts) and one to rank texts by (over the videos): a video that is near every text then counts
    less for each. It needs all queries at once.
    """
    return sims * (sims / temperature).softmax(dim=0), sims * (sims / temperature).softmax(dim=1)


def grouped(sims: torch.Tensor, owner: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows put in the metrics' order: by video, the same number for each, blank ones where a video has fewer.

    Returns:
        sims [V·K, V] and mask [V·K], True where there is a caption.
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
    return rows, mask


def text_to_video(sims: torch.Tensor, owner: Sequence[int]) -> dict[str, float]:
    rows, mask = grouped(sims, owner)
    return {key: float(value) for key, value in t2v_metrics(rows, query_masks=mask).items()}


def video_to_text(sims: torch.Tensor, owner: Sequence[int]) -> dict[str, float]:
    rows, mask = grouped(sims, owner)
    return {key: float(value) for key, value in v2t_metrics(rows, query_masks=mask).items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser(
        "Zero-shot retrieval (MSR-VTT, DiDeMo, LSMDC): recall at 1, 5, 10 and 50 and the ranks, both ways.",
        "example:\n  python downstream/retrieval.py --dataset msrvtt --arch TVTSv2_B_16 --dsl",
    )
    return run_command(parser.parse_args(argv), {"retrieval": evaluate})


if __name__ == "__main__":
    sys.exit(main())
