"""From items to a batch."""

import torch

from data_loader.handover import stack


class Collate:
    """Stacks the items of a data set into a batch.

    "video" uint8 [B, T, 3, S, S]; "valid_frames", "index" and, where there are any, "label" and "answer"
    int64 [B]; "keep_ind" int64 [B, n] when all items have a mask; "id" list[str]; "problems" what was
    mended in transcripts; "failures" the unreadable files of all items. "text": the K texts of each sample,
    clip-major (clip 0 of every sample, then clip 1, ...): int64 [K*B, 77] when a tokenizer (list[str] ->
    int64 [M, 77]) is given, else list[str]. Of items that are only a note of an unreadable video the
    Failures go to "missing"; a batch of nothing else has no "video".
    """

    def __init__(self, tokenizer=None):
        self.tokenizer = tokenizer

    def __call__(self, items: list[dict]) -> dict:
        missing = [item["missing"] for item in items if "missing" in item]
        items = [item for item in items if "missing" not in item]
        batch = {
            "index": torch.tensor([item["index"] for item in items], dtype=torch.int64),
            "id": [item["id"] for item in items],
            "failures": [failure for item in items for failure in item["failures"]],
            "problems": [problem for item in items for problem in item.get("problems", ())],
            "missing": missing,
        }
        if not items:
            return batch
        for key in ("video", "keep_ind"):
            if key in items[0]:
                batch[key] = stack([item[key] for item in items])
        for key in ("valid_frames", "label", "answer"):
            if key in items[0]:
                batch[key] = torch.tensor([item[key] for item in items], dtype=torch.int64)
        texts = clip_major([item["text"] for item in items])
        if texts:
            batch["text"] = self.tokenizer(texts) if self.tokenizer else texts
        return batch


def clip_major(texts: list[list[str]]) -> list[str]:
    """B lists of K texts -> K*B texts, clip 0 of every sample first."""
    counts = {len(t) for t in texts}
    if len(counts) > 1:
        raise ValueError(f"the samples of a batch have different numbers of texts: {sorted(counts)}")
    return [t[k] for k in range(counts.pop()) for t in texts]
