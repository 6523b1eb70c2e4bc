"""A part of a set's training videos, kept from training: to validate on, to choose by."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from data_loader.labels import LabelRecords
from data_loader.records import Record, Records
from data_loader.spans import Span
from data_loader.text_rows import SPAN

logger = logging.getLogger(__name__)

NUMBER = re.compile(r"(?:_c?|-Scene-)\d+$")  # of a clip, behind the name of its source


def held_out_mask(names: Sequence[str], labels: Sequence[int], share: float, seed: int = 0) -> torch.Tensor:
    """A mask [N] of about a `share` of each class, of which a source is never held out; clips cut from the
    same source, and spans of the same file, stay on the same side.

    HMDB-51 and UCF-101 number such clips at the end of their names (…_g01_c03, …_goo_2), as Vript and
    PySceneDetect do (…-Scene-003). Held out next to its siblings a clip would be recognised by its looks. Of
    sources of more than twice the share only those as small as the smallest are held out.
    """
    groups: dict[tuple[int, str], list[int]] = {}
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        groups.setdefault((label, NUMBER.sub("", Path(SPAN.sub("", name)).stem)), []).append(i)
    of_class: dict[int, list[list[int]]] = {}
    for (label, _), members in groups.items():
        of_class.setdefault(label, []).append(members)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for parts in of_class.values():
        wanted, held = share * sum(map(len, parts)), 0
        most = max(2 * wanted, min(map(len, parts)))
        order = torch.randperm(len(parts), generator=generator).tolist()
        chosen = [i for i in order if len(parts[i]) <= most]
        for i in chosen if len(chosen) < len(parts) else chosen[:-1]:
            if held >= wanted:
                break
            mask[parts[i]] = True
            held += len(parts[i])
    return mask


class PartOfRecords(Records):
    """The records of a set at some places."""

    def __init__(self, whole: Records, places: np.ndarray):
        self.whole, self.places = whole, places.tolist()
        self.root, self.num_clips = whole.root, whole.num_clips

    def __len__(self) -> int:
        return len(self.places)

    def id(self, index: int) -> str:
        return self.whole.id(self.places[index])

    def path(self, index: int) -> Path:
        return self.whole.path(self.places[index])

    def span(self, index: int) -> Span | None:
        return self.whole.span(self.places[index])

    def __getitem__(self, index: int) -> Record:
        return self.whole[self.places[index]]

    @contextmanager
    def video_file(self, index: int) -> Iterator[Path]:
        with self.whole.video_file(self.places[index]) as path:
            yield path


def part_for(split: str, records: Records, share: float) -> PartOfRecords:
    """Of training records those to train on, or for "val" the others: a `share`, the same in every run.

    Raises ValueError: nothing can be held out.
    """
    names = [records.id(i) for i in range(len(records))]
    labels = records.labels.tolist() if isinstance(records, LabelRecords) else [0] * len(names)
    mask = held_out_mask(names, labels, share).numpy()
    if not mask.any():
        raise ValueError(
            f"data.held_out is {share}, but of {len(names)} training videos none can be held out: each class "
            "needs videos of two sources (those whose names differ by a number behind _ alone are of one)"
        )
    if split == "val":
        logger.info("held out: %d of %d training videos", int(mask.sum()), len(names))
    return PartOfRecords(records, np.flatnonzero(mask if split == "val" else ~mask))
