"""Attentive probe of the frozen video tower, as V-JEPA 2 evaluates (arXiv 2506.09985): a learned query
attends to all tokens of a clip, a linear classifier reads what it gathers.

The tokens are made once and kept on the disk. Test videos may be seen in several views, whose probabilities
are averaged, as V-JEPA 2 does it; training videos are seen once. Heads of several learning rates are trained
at once, on the same batches; the one that does best on a tenth of the training videos, which none is trained
on, is measured.
"""

from collections.abc import Mapping
from math import ceil

import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn
from tqdm import tqdm

from data_loader.labels import ClassRecords
from downstream.embedding.embedder import exact_float32
from downstream.linear_probe import (
    classification_loss,
    held_out_key,
    hold_out,
    probe_counts,
    score,
    targets_of,
    warn_of_unknown_classes,
)
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.recognition import average_views, classification
from downstream.report import TITLES, Measurement, draw_table
from utils.schema import EvaluationConfig

HEAD_WIDTH = 64  # of attention, where it divides the tokens'


def attentive_head(width: int, num_classes: int) -> nn.Sequential:
    """Tokens [B, L, width] -> logits [B, num_classes]: a layer of cross-attention, a classifier."""
    heads = max(1, width // HEAD_WIDTH) if width % HEAD_WIDTH == 0 else 1
    pool = AttentionPoolLatent(width, num_heads=heads, mlp_ratio=4.0, norm_layer=nn.LayerNorm)
    return nn.Sequential(nn.LayerNorm(width), pool, nn.LayerNorm(width), nn.Linear(width, num_classes))


def train_heads(
    videos: EmbeddedVideos, rows: list[int], num_classes: int, config: EvaluationConfig
) -> list[nn.Sequential]:
    """A head for each learning rate, trained on the videos at the places `rows`, all on the same batches.

    AdamW, each rate falling to zero along a cosine.
    """
    probe, targets = config.probe, targets_of(videos)
    width = videos.read_tokens(rows[:1]).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = [attentive_head(width, num_classes) for _ in probe.learning_rates]
    heads = [head.to(videos.device).train() for head in heads]
    groups = zip(heads, probe.learning_rates, strict=True)
    optimizer = torch.optim.AdamW(
        [{"params": head.parameters(), "lr": lr} for head, lr in groups], weight_decay=probe.weight_decay
    )
    steps = probe.epochs * ceil(len(rows) / probe.batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    bar = tqdm(total=steps, unit="step", desc="attentive probe", leave=False, disable=None)
    with exact_float32(), bar:
        for _ in range(probe.epochs):
            order = torch.tensor(rows)[torch.randperm(len(rows), generator=generator)]
            for batch in order.split(probe.batch_size):
                tokens = videos.read_tokens(batch.tolist())
                wanted = targets[batch].to(videos.device)
                loss = torch.stack([classification_loss(head(tokens), wanted) for head in heads]).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                bar.update()
    return [head.eval() for head in heads]


@torch.no_grad()
def logits_of(heads: list[nn.Sequential], videos: EmbeddedVideos, rows: list[int], batch_size: int) -> Tensor:
    """[heads, R, classes] on the CPU, of the videos at the places `rows`, averaged over their views."""
    assert videos.tokens is not None
    views, found = videos.tokens.clips, []
    with exact_float32():
        for batch in torch.tensor(rows).split(max(1, batch_size // views)):
            tokens = videos.read_tokens(batch.tolist()).flatten(0, -3)  # [b · views, L, D]
            logits = torch.stack([head(tokens).float() for head in heads]).cpu()
            found.append(logits if views == 1 else average_views(logits.unflatten(1, (-1, views)), videos))
    return torch.cat(found, dim=1)


def measure(
    train: EmbeddedVideos, test: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig
) -> Measurement:
    """The head chosen on held-out training videos; and, as V-JEPA 2 reports, the one best on the test."""
    warn_of_unknown_classes(train, test)
    probe, names = config.probe, test.dataset.records_as(ClassRecords).class_names
    held_out, targets = hold_out(train), targets_of(train)
    kept, others = ((~held_out).nonzero().flatten().tolist(), held_out.nonzero().flatten().tolist())
    heads = train_heads(train, kept, len(names), config)
    held_out_logits = logits_of(heads, train, others, probe.batch_size)
    on_held_out = [score(one, targets[others]) for one in held_out_logits]
    logits = logits_of(heads, test, list(range(len(test.indices))), probe.batch_size)
    on_test = [next(iter(classification(test, one).metrics.values()))["plain"] for one in logits]
    figure = next(iter(on_test[0]))  # top-1, or mAP
    chosen = max(range(len(heads)), key=lambda i: on_held_out[i])
    measured = classification(test, logits[chosen])
    best = max(on_test, key=lambda metrics: metrics[figure])
    measured.metrics["best head on the test videos"] = {"plain": best}
    measured.counts = probe_counts(train, test)
    rows = [
        {"learning_rate": lr, held_out_key(targets): held, figure: metrics[figure]}
        for lr, held, metrics in zip(probe.learning_rates, on_held_out, on_test, strict=True)
    ]
    measured.details |= {"heads": rows, "chosen": probe.learning_rates[chosen]}
    measured.notes = draw_table(
        [f"held-out {TITLES[figure]}", f"test {TITLES[figure]}"],
        [(f"{lr:g}", [f"{held:.1f}", f"{found:.1f}"]) for lr, held, found in (row.values() for row in rows)],
    )
    state = {name: x.contiguous() for name, x in heads[chosen].cpu().state_dict().items()}
    measured.tensors = {"probe": state}
    return measured


PROTOCOL = Protocol(
    "attentive_probe", "recognition", ClassRecords, measure, splits=("train", "test"), tokens=True
)
