"""What a protocol is: how a kind of data set is evaluated, and what it is given to measure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data_loader.dataset import VideoDataset
from data_loader.failures import Failure
from data_loader.labels import LabelRecords
from data_loader.records import Records
from downstream.embedding.token_cache import TokenCache
from downstream.report import Measurement
from model.class_head import ClassHead
from utils.schema import EvaluationConfig


@dataclass(frozen=True)
class EmbeddedVideos:
    """The videos of a split that could be read, in order, and the files that could not.

    indices: their places in the data set. embeds: [len(indices), D] float32, on the CPU of the first
    process, empty on the others. device: where the model is. views: what embeds are the means of, [N, W, D],
    for a protocol with `each_view` where there are several. tokens: of protocols that ask for them.
    head: the classification head of the model, if it has one.
    """

    dataset: VideoDataset
    indices: list[int]
    embeds: torch.Tensor
    device: torch.device
    failures: list[Failure] = field(default_factory=list)
    views: torch.Tensor | None = None
    tokens: TokenCache | None = None
    head: ClassHead | None = None

    def read_tokens(self, rows: Sequence[int]) -> torch.Tensor:
        """All tokens of the videos at these places, float32 [R, L, D] where the model is; [R, W, L, D] of
        videos seen in W views."""
        assert self.tokens is not None
        return self.tokens.read([self.indices[row] for row in rows]).to(self.device)

    @property
    def ids(self) -> list[str]:
        return [self.dataset.records.id(i) for i in self.indices]

    @property
    def labels(self) -> list[int]:
        """The class numbers of a data set that has them."""
        labels = self.dataset.records_as(LabelRecords).labels
        return [int(labels[i]) for i in self.indices]


@dataclass(frozen=True)
class Protocol:
    """How a kind of data set is evaluated.

    name: what results and published numbers are filed under.
    task: of the configs that it is for.
    records: the kind of records that it is for.
    measure: (EmbeddedVideos of each of `splits`, text -> its embedding [D], config) -> Measurement; runs on
        the first process alone.
    texts: (data set, config) -> the texts to embed for it; None for none.
    splits: of the data set; None and "test" are the one that the config names, "test" by default. Of these
        "train" alone is never seen in sliding windows or several views.
    windows: whether videos may be seen in sliding windows: the official release has them for retrieval.
    each_view: whether it needs the embedding of each view (segments × crops), not their mean.
    shares: the protocol that it measures the same embeddings as: they lie in that one's folder, and its own
        results in a folder below.
    tokens: whether it wants all tokens in place of embeddings.
    """

    name: str
    task: str
    records: type[Records]
    measure: Callable[..., Measurement]
    texts: Callable[[VideoDataset, EvaluationConfig], list[str]] | None = None
    splits: Sequence[str | None] = (None,)
    windows: bool = False
    each_view: bool = False
    shares: str | None = None
    tokens: bool = False


@dataclass(frozen=True)
class Job:
    """A data set to be evaluated, the folder for what comes of it, and the command that asked for it."""

    protocol: Protocol
    config: EvaluationConfig
    datasets: list[VideoDataset]  # of protocol.splits
    folder: Path
    command: str

    @property
    def results(self) -> Path:
        """The folder of the figures."""
        return self.folder / self.protocol.name if self.protocol.shares else self.folder
