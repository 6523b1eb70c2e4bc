"""TVTSv2 as a model of transformers: `model.convert --transformers` copies this file and what it imports."""

from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .tvtsv2 import TVTSv2
from .variants import Variant
from .video_encoder import VideoTransformer


class TVTSv2Config(PretrainedConfig):
    """
    Args:
        settings: the fields of Variant.
        sort_head: whether the weights have the head of pre-training that sorts transcripts in time.
        logit_scale: what makes cosines logits; 1 / 0.05 in pre-training, by its temperature.
    """

    model_type = "tvtsv2"

    def __init__(
        self,
        settings: dict[str, Any] | None = None,
        sort_head: bool = False,
        logit_scale: float = 20.0,
        **kwargs: Any,
    ):
        self.settings = settings
        self.sort_head = sort_head
        self.logit_scale = logit_scale
        super().__init__(**kwargs)

    @classmethod
    def of(cls, model: TVTSv2) -> "TVTSv2Config":
        return cls(asdict(model.variant), sort_head=model.pred_model is not None)


@dataclass
class TVTSv2Output(ModelOutput):
    """B videos, M texts, embedding size D; embeddings are not normalised. What was not given is None."""

    logits_per_video: Tensor | None = None  # [B, M], cosines times the scale
    logits_per_text: Tensor | None = None  # [M, B]
    video_embeds: Tensor | None = None  # [B, D]
    text_embeds: Tensor | None = None  # [M, D]


class TVTSv2Model(PreTrainedModel):
    """TVTSv2 is `tvtsv2`. In a converted folder it runs on PyTorch's own kernels alone."""

    config_class = TVTSv2Config
    main_input_name = "pixel_values_videos"
    _supports_sdpa = True

    def __init__(self, config: TVTSv2Config):
        super().__init__(config)
        if config.settings is None:
            raise ValueError("the config has no settings; load a folder that model.convert wrote")
        self.tvtsv2 = TVTSv2(Variant(**config.settings), sort_head=config.sort_head)
        self.post_init()

    def get_video_features(self, pixel_values_videos: Tensor, valid_frames: Tensor | None = None) -> Tensor:
        """Clips [B, T, 3, S, S], uint8 or normalised float -> embeddings [B, D], not normalised.

        valid_frames: int64 [B]; frames from that index on are padding. None: no frame is.
        """
        return self.tvtsv2.encode_video(pixel_values_videos, valid_frames=valid_frames)[0]

    def get_text_features(self, input_ids: Tensor) -> Tensor:
        """Token ids [M, L], as the processor makes them -> embeddings [M, D], not normalised."""
        return self.tvtsv2.encode_text(input_ids)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        valid_frames: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> TVTSv2Output | tuple[Tensor, ...]:
        """Embeddings of what is given and, of videos and texts together, how well each fits each."""
        videos = texts = logits = None
        if pixel_values_videos is not None:
            videos = self.get_video_features(pixel_values_videos, valid_frames)
        if input_ids is not None:
            texts = self.get_text_features(input_ids)
        if videos is not None and texts is not None:
            logits = self.config.logit_scale * F.normalize(videos, dim=-1) @ F.normalize(texts, dim=-1).T
        output = TVTSv2Output(logits, None if logits is None else logits.T, videos, texts)
        return output.to_tuple() if return_dict is False else output

    def _init_weights(self, module: nn.Module) -> None:
        # TVTSv2 has its own initial weights. What from_pretrained builds without memory loses the values of
        # buffers that are not in the file.
        if isinstance(module, VideoTransformer):
            module.set_pixel_statistics()

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As of transformers, but weights that are missing or left over are a ValueError, not a warning."""
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        wrong = {
            key: sorted(map(str, info[key]))[:5]
            for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if info.get(key)
        }
        if wrong:
            raise ValueError(f"the weights are not those of the config: {wrong}; get the folder again")
        return (model, info) if output_loading_info else model
