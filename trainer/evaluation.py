"""Zero-shot evaluations of a model in training: the protocols of downstream/ on any of their configs."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from CLIP import tokenize
from data_loader.transforms import clip_transform, feature_transform
from downstream import multiple_choice, recognition, retrieval
from downstream.commands import protocol_for
from downstream.embedding.encoder import Encoder
from downstream.evaluation import Embedded, Evaluator, UnreadableVideosError
from downstream.protocol import Job
from model import TVTSv2
from trainer.metrics import RunLog
from utils.config import ConfigError, load_config
from utils.errors import RunError
from utils.processes import DistContext
from utils.schema import EvaluationConfig, PretrainingConfig

logger = logging.getLogger(__name__)

PROTOCOLS = (retrieval.PROTOCOL, recognition.PROTOCOL, multiple_choice.PROTOCOL)
WAYS = {"text to video": ["t2v"], "video to text": ["v2t"], "accuracy": []}  # in names of figures


class Evaluations:
    """The evaluations that `trainer.evaluate` names, ready to be done again and again.

    Args:
        model: in training, on its device.
        autocast: the run's precision, which is that of its evaluations, too.

    Raises:
        ConfigError, FileNotFoundError: a config, or data that it names, cannot be used; names its key.
    """

    def __init__(
        self,
        config: PretrainingConfig,
        model: TVTSv2,
        context: DistContext,
        autocast: Callable[[], AbstractContextManager],
        run_dir: Path,
    ):
        self.model, self.autocast, self.folder = model, autocast, run_dir / "evaluations"
        size = model.image_size
        self.encoder = Encoder(
            Towers(model, autocast),
            tokenize,
            clip_transform("test", size),
            feature_transform(size),
            config.arch.num_frames,
            config.arch.type,
            run_dir,
            sha256="",
        )
        self.context = context
        self.jobs: list[Job] = []
        for i, path in enumerate(config.trainer.evaluate):
            try:
                self.jobs.append(self._open(path, config.data.num_workers))
            except (ValueError, FileNotFoundError) as error:
                kind = ConfigError if isinstance(error, ValueError) else FileNotFoundError
                raise kind(f"trainer.evaluate.{i}, {path}: {error}") from error

    def _open(self, path: str, num_workers: int) -> Job:
        config = load_config(EvaluationConfig, path)
        if config.num_workers is None:
            config = replace(config, num_workers=num_workers)
        if config.name in [job.config.name for job in self.jobs]:
            raise ConfigError(f"another one is of {config.name}, too: give it a name of its own")
        protocol = protocol_for(config, PROTOCOLS)
        folder = self.folder / config.name
        return Evaluator(self.encoder, self.context).open(protocol, config, folder, f"train.py, {path}")

    def embed(self, step: int) -> list[tuple[Evaluator, Job, Embedded]]:
        """The videos and texts of all jobs, on every rank its share. What could not be embedded is left out.

        A run that was killed meanwhile goes on with what it has embedded already.
        """
        done = []
        # The vectors of other weights are others': that tells them apart.
        weights = self.context.broadcast_object(fingerprint(self.model))
        encoder = replace(self.encoder, sha256=f"step {step}, weights {weights}")
        evaluator = Evaluator(encoder, self.context, allow_missing=True)
        was_training = self.model.training
        self.model.eval()
        if isinstance(self.model, FSDPModule):  # it is ready for calls of its parts after one as a whole
            size = self.model.image_size
            with torch.inference_mode(), self.autocast():
                self.model({"video": torch.zeros(1, 1, 3, size, size, dtype=torch.uint8)})
        for job in self.jobs:
            try:
                done.append((evaluator, job, evaluator.embed(job)))
            except (UnreadableVideosError, RunError) as error:
                logger.warning("evaluation, %s, is left out: %s", job.config.name, error)
        self.model.train(was_training)
        return done

    def measure(
        self,
        embedded: Sequence[tuple[Evaluator, Job, Embedded]],
        place: Mapping[str, int],
        run_log: RunLog,
    ) -> None:
        """Log the figures, on rank 0, and write them down: "msrvtt_t2v_R1" and the like. May be any thread's.

        place: the step and epoch that they belong to.
        """
        figures: dict[str, float] = {}
        for evaluator, job, vectors in embedded:
            evaluation = evaluator.measure(job, vectors)
            own = {
                "_".join([*WAYS.get(way, way.split()), name]): value
                for way, kinds in evaluation.measured.metrics.items()
                for name, value in kinds["plain"].items()
            }
            words = "  ".join(f"{name} {value:.2f}" for name, value in own.items())
            missing = f", without {len(evaluation.missing)} unreadable videos" if evaluation.missing else ""
            logger.info("evaluation, %s: %s%s", job.config.name, words, missing)
            figures |= {f"{job.config.name}_{name}": value for name, value in own.items()}
        run_log.write("evaluation", [{**place, **figures}])
        shutil.rmtree(self.folder, ignore_errors=True)


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """What tells these weights from others. Every rank has to call it."""
    sums = []
    for each in model.parameters():
        whole = each.full_tensor() if isinstance(each, DTensor) else each
        norm = torch.linalg.vector_norm(whole, dtype=torch.float64)
        sums.append(torch.stack([whole.sum(dtype=torch.float64), norm]))
    return hashlib.sha256(torch.stack(sums).cpu().numpy().tobytes()).hexdigest()[:20]


class Towers:
    """A TVTSv2 in training as the model of an encoder: in the precision and the place that it trains in."""

    def __init__(self, model: TVTSv2, autocast: Callable[[], AbstractContextManager]):
        self.model, self.autocast = model, autocast

    def to(self, device: torch.device) -> Self:
        return self

    def eval(self) -> Self:
        return self

    def encode_video(self, video: Tensor, *, valid_frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with self.autocast():
            return self.model.encode_video(video, valid_frames=valid_frames)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        with self.autocast():
            return self.model.encode_text(token_ids)
