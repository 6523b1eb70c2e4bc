"""Run by torchrun in test_distributed.py: each rank's gradients on its share of one batch, by kind of gather.

Usage: gradients.py OUT_DIR GATHER. Without torchrun: the gradients of one process on the whole batch.
"""

import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from model import create_model
from model.loss import NormSoftmaxLoss, sort_loss
from model.metric import sim_matrix
from trainer.distributed import cleanup, gather_batch, setup

BATCH, CLIPS = 4, 4


def whole_batch() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    text = torch.randint(1, 400, (BATCH, CLIPS, 77), generator=g)
    text[:, :, 9] = 49407  # end of text
    return {
        "video": torch.randn(BATCH, 3, 3, 64, 64, generator=g),
        "text": text,
        "keep_ind": torch.stack([torch.randperm(16, generator=g)[:8] for _ in range(BATCH)]),
    }


def main(output: Path, gather: str) -> None:
    context = setup("cpu")
    torch.manual_seed(1)
    model = create_model("TVTSv2_Demo", video_layers=1, text_layers=1, trained_text_blocks=1)
    per_rank = BATCH // context.world_size
    mine = slice(context.rank * per_rank, (context.rank + 1) * per_rank)
    batch = {key: value[mine] for key, value in whole_batch().items()}
    batch["text"] = batch["text"].transpose(0, 1).flatten(0, 1)  # clip-major
    forward = DistributedDataParallel(model) if context.world_size > 1 else model
    out = forward(batch)
    video, text = gather_batch([out.video_embeds, out.text_embeds], gather)
    losses = {
        "contrastive": NormSoftmaxLoss(0.05)(sim_matrix(video, text)),
        "sorting": context.mean(sort_loss(out.order_logits).detach()),
    }
    (losses["contrastive"] + sort_loss(out.order_logits)).backward()
    if context.is_main:
        state = {name: p.grad for name, p in model.named_parameters()}
        torch.save({"grads": state, **{k: v.detach() for k, v in losses.items()}}, output / f"{gather}.pt")
    cleanup()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
