"""Attentive probe of the frozen video tower, as V-JEPA 2 evaluates (arXiv 2506.09985): a learned query
attends to all tokens of a clip, a linear classifier reads what it gathers.

The tokens are made once and kept on the disk. Heads of several learning rates are trained at once, on the
same batches; the one that does best on a tenth of the training videos, which none is trained on, is measured.
"""

from collections.abc import Mapping
from math import ceil

import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from data_loader.labels import LabelRecords
from downstream.embedder import exact_float32
from downstream.evaluation import EmbeddedVideos, Protocol
from downstream.linear_probe import choose_held_out, probe_counts, warn_of_unknown_classes
from downstream.recognition import classification
from downstream.report import Measurement, draw_table
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
    probe, labels = config.probe, torch.tensor(videos.labels)
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
                wanted = labels[batch].to(videos.device)
                loss = torch.stack([cross_entropy(head(tokens), wanted) for head in heads]).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                bar.update()
    return [head.eval() for head in heads]


@torch.no_grad()
def logits_of(heads: list[nn.Sequential], videos: EmbeddedVideos, rows: list[int], batch_size: int) -> Tensor:
    """[heads, R, classes] on the CPU, of the videos at the places `rows`."""
    found = []
    with exact_float32():
        for batch in torch.tensor(rows).split(batch_size):
            tokens = videos.read_tokens(batch.tolist())
            found.append(torch.stack([head(tokens).float() for head in heads]).cpu())
    return torch.cat(found, dim=1)


def measure(
    train: EmbeddedVideos, test: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig
) -> Measurement:
    """The head chosen on held-out training videos; and, as V-JEPA 2 reports, the one best on the test."""
    warn_of_unknown_classes(train, test)
    probe, names = config.probe, test.dataset.records_as(LabelRecords).class_names
    held_out = choose_held_out(train.ids, train.labels)
    kept, others = ((~held_out).nonzero().flatten().tolist(), held_out.nonzero().flatten().tolist())
    heads = train_heads(train, kept, len(names), config)
    guesses = logits_of(heads, train, others, probe.batch_size).argmax(dim=-1)
    on_held_out = 100.0 * (guesses == torch.tensor(train.labels)[others]).float().mean(dim=1)
    logits = logits_of(heads, test, list(range(len(test.indices))), probe.batch_size)
    on_test = [classification(test, one).metrics["accuracy"]["plain"] for one in logits]
    chosen = int(on_held_out.argmax())
    measured = classification(test, logits[chosen])
    best = max(on_test, key=lambda metrics: metrics["top1"])
    measured.metrics["best head on the test videos"] = {"plain": best}
    measured.counts = probe_counts(train, test)
    rows = [
        {"learning_rate": lr, "held_out_top1": float(held), "top1": metrics["top1"]}
        for lr, held, metrics in zip(probe.learning_rates, on_held_out, on_test, strict=True)
    ]
    measured.details |= {"heads": rows, "chosen": probe.learning_rates[chosen]}
    measured.notes = draw_table(
        ["held-out top-1", "test top-1"],
        [
            (f"{row['learning_rate']:g}", [f"{row['held_out_top1']:.1f}", f"{row['top1']:.1f}"])
            for row in rows
        ],
    )
    state = {name: x.contiguous() for name, x in heads[chosen].cpu().state_dict().items()}
    measured.tensors = {"probe": state}
    return measured


PROTOCOL = Protocol(
    "attentive_probe", "recognition", LabelRecords, measure, splits=("train", "test"), tokens=True
)
