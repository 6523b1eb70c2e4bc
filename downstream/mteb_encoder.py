"""An encoder as mteb's tasks take it: rows of videos or of texts in, one vector each out."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from torch import nn

from data_loader.dataset import VideoDataset
from data_loader.failures import Failure
from data_loader.records import Records
from data_loader.video import VideoReadError
from downstream.embedding.embedder import Embedder, progress_bar, warn_if_alike
from downstream.embedding.encoder import OPEN_CLIP, Encoder
from downstream.embedding.reading import collate_clips, read_batches
from model.metric import check_finite
from utils.errors import RunError
from utils.text import counted


class HubVideos(Records):
    """The column "video" of a data set of the Hugging Face hub: files, or their bytes in its tables."""

    def __init__(self, rows: datasets.Dataset):
        """Raises ValueError: the column holds no video files."""
        if not isinstance(rows.features["video"], datasets.Video):
            raise ValueError(f"the column 'video' is of type {rows.features['video']}, not datasets.Video")
        # The files themselves: mteb's decoder would be torchcodec, ours is the one of all other commands.
        self.rows = rows.select_columns("video").cast_column("video", datasets.Video(decode=False))

    def __len__(self) -> int:
        return len(self.rows)

    def id(self, index: int) -> str:
        return f"row {index}"

    def path(self, index: int) -> Path:
        return Path(self.rows[index]["video"]["path"] or self.id(index))

    @contextmanager
    def video_file(self, index: int) -> Iterator[Path]:
        video = self.rows[index]["video"]
        if video["bytes"] is None:
            yield Path(video["path"])
            return
        with tempfile.NamedTemporaryFile(suffix=Path(video["path"] or "").suffix) as file:
            file.write(video["bytes"])
            file.flush()
            try:
                yield Path(file.name)
            except VideoReadError as error:
                raise VideoReadError(self.path(index), error.reason) from error


@dataclass
class MtebEncoder(AbsEncoder):
    """Videos are read and embedded as in our own protocols: frames spread over the whole, the centre crop.

    embedder: of the encoder's model. timeout: seconds that reading a video may take.
    """

    encoder: Encoder
    embedder: Embedder
    reader: str = "pyav"
    timeout: float | None = 300.0

    @property
    def mteb_model_meta(self) -> ModelMeta:  # type: ignore[override]
        """Results are kept by name, revision and `experiment_kwargs`; what changes them is among these."""
        encoder, model = self.encoder, self.encoder.model
        how = {"precision": self.embedder.precision, "reader": self.reader}
        changed = {key: value for key, value in how.items() if value not in ("fp32", "pyav")}
        parameters = sum(p.numel() for p in model.parameters()) if isinstance(model, nn.Module) else None
        clip = encoder.arch.startswith(OPEN_CLIP)
        name = encoder.arch.removeprefix(OPEN_CLIP).replace("/", "-")
        return ModelMeta(
            loader=None,
            name=f"{'open_clip' if clip else 'tvtsv2'}/{name}",
            revision=encoder.sha256,
            release_date=None,
            languages=["eng-Latn"],
            n_parameters=parameters,
            memory_usage_mb=None,
            max_tokens=77,
            embed_dim=None,
            license=None,
            open_weights=True,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=False,
            training_datasets=None,
            modalities=["video", "text"],
            experiment_kwargs=changed or None,
        )

    def encode(self, inputs: Any, *, task_metadata: Any, **options: Any) -> np.ndarray:
        """Embed the rows of a DataLoader of mteb, float32 [rows, D]; only its data set is looked at.

        Raises:
            ValueError: rows hold neither text nor video, or both.
            RunError: videos cannot be read; names each.
            FloatingPointError: an embedding is not finite; names what it is of.
        """
        rows = inputs.dataset
        found = {"text", "video"} & set(rows.column_names)
        if len(found) != 1:
            raise ValueError(
                f"{task_metadata.name} wants one vector of {' and '.join(sorted(rows.column_names))}; there "
                "is one of a text or of a video"
            )
        if found == {"text"}:
            return self.embedder.encode_texts(list(rows["text"])).numpy()
        return self.encode_videos(rows, task_metadata.name)

    def encode_videos(self, rows: datasets.Dataset, name: str) -> np.ndarray:
        """float32 [rows, D]. Raises as `encode`."""
        dataset = VideoDataset(
            HubVideos(rows),
            num_frames=self.encoder.num_frames,
            reader=self.reader,
            timeout=self.timeout,
            allow_missing=True,
            transform=self.encoder.clip_transform,
        )
        embedder = self.embedder
        embeds: list[torch.Tensor] = []
        missing: dict[int, Failure] = {}
        batches = read_batches(
            dataset,
            range(len(dataset)),
            embedder.batch_size,
            collate_clips,
            num_workers=embedder.num_workers,
            device=embedder.context.device,
        )
        with progress_bar(len(dataset), "video", embedder.context, name) as bar:
            for batch in batches:
                missing |= batch["missing"]
                if batch["index"]:
                    for part, _ in embedder.encode_clips(batch["video"], batch["valid_frames"]):
                        embeds.append(part)
                        bar.update(len(part))
        if missing:
            listed = "\n".join(f"  {failure}" for failure in missing.values())
            raise RunError(
                f"{len(missing)} of {counted(len(dataset), 'videos')} of {name} cannot be read:\n{listed}"
            )
        vectors = torch.cat(embeds)
        check_finite(vectors, [str(path) for path in dataset.video_paths])
        warn_if_alike(vectors, "videos")
        return vectors.numpy()
