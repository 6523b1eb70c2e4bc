"""TVTSv2: a video tower, a text tower, and a head that learns by sorting transcripts in time."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from .checks import check_token_ids, check_weights
from .class_head import ClassHead
from .kernels import ATTENTION_BACKENDS
from .layers import Mlp
from .precision import as_residual
from .sort_transformer import SortTransformer
from .text_encoder import TextTransformer, cut_to_longest
from .variants import Variant, get_variant
from .video_encoder import VideoTransformer


class ModelOutput(NamedTuple):
    """What a forward gives: B samples, embedding size D, K texts a sample."""

    text_embeds: Tensor | None  # [B, D], the mean over a sample's K texts; None without texts
    video_embeds: Tensor  # [B, D]
    order_logits: Tensor | None  # [B, K, K], row k for text k; None when K is 1 or there is no sort head
    class_logits: Tensor | None = None  # [B, classes]; None without a classification head


class TVTSv2(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="tvtsv2",
    tags=["video-text-retrieval", "zero-shot-video-classification"],
):
    """The model of "TVTSv2: Learning Out-of-the-box Spatiotemporal Visual Representations at Scale".

    Parameter names are those of the official checkpoints. `create_model` lists the arguments.
    """

    def __init__(
        self,
        variant: str | Variant,
        sort_head: bool = True,
        num_frames: int | None = None,
        attention: str = "auto",
        activation_checkpointing: int | str = 0,
        freeze_text_embeddings: bool = False,
        class_names: Sequence[str] | None = None,
        **overrides,
    ):
        super().__init__()
        if attention not in ATTENTION_BACKENDS:
            raise ValueError(f"unknown attention {attention!r}; there are {', '.join(ATTENTION_BACKENDS)}")
        recompute_mlps = activation_checkpointing == "mlp"
        checkpoint_every = 0 if recompute_mlps else activation_checkpointing
        if not isinstance(checkpoint_every, int) or checkpoint_every < 0:
            raise ValueError(
                f"activation_checkpointing={activation_checkpointing!r}, expected 0 (off), k (every "
                "k-th block) or 'mlp'"
            )
        if num_frames is not None:
            overrides["num_frames"] = num_frames
        known = variant if isinstance(variant, Variant) else get_variant(variant)
        v = self.variant = known.replace(**overrides)

        self.video_model = VideoTransformer(v, attention)
        self.text_token_embedding = nn.Embedding(v.vocab_size, v.text_width)
        self.text_positional_embedding = nn.Parameter(torch.empty(v.context_length, v.text_width))
        self.text_model = TextTransformer(v, attention)
        self.text_ln_final = nn.LayerNorm(v.text_width)
        self.text_projection = nn.Parameter(torch.empty(v.text_width, v.embed_dim))
        self.pred_model = SortTransformer(v, attention) if sort_head else None
        self.head = ClassHead(v.embed_dim, class_names) if class_names else None
        for module in self.modules():
            if isinstance(module, Mlp):
                module.recompute = recompute_mlps
        for tower in (self.video_model.transformer.resblocks, self.text_model.resblocks):
            for block in list(tower)[::checkpoint_every] if checkpoint_every else []:
                block.recompute = True

        nn.init.normal_(self.text_token_embedding.weight, std=v.text_embedding_std or 0.02)
        nn.init.normal_(self.text_positional_embedding, std=v.text_embedding_std or 0.01)
        nn.init.normal_(self.text_projection, std=v.text_width**-0.5)
        if freeze_text_embeddings:  # then nothing below the first trained block needs a gradient
            self.text_token_embedding.requires_grad_(False)
            self.text_positional_embedding.requires_grad_(False)

    @property
    def num_patches(self) -> int:
        """N, patches a frame."""
        return self.variant.num_patches

    @property
    def image_size(self) -> int:
        """Height and width of a frame in pixels."""
        return self.variant.image_size

    @property
    def device(self) -> torch.device:
        return self.text_projection.device

    def encode_video(
        self, video: Tensor, keep_ind: Tensor | None = None, valid_frames: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Clips to embeddings.

        Args:
            video: [B, T, 3, S, S] with 1 <= T <= num_frames, or images [B, 3, S, S]; float (normalised) or
                uint8 (raw pixels, normalised here).
            keep_ind: [B, n] int64, the patches of every frame to keep, any n; None keeps all.
            valid_frames: [B] int64; frames from that index on are padding: zeros after normalising. None: no
                frame is.

        Returns:
            embeddings [B, D], not normalised, and the tokens as the sort head sees them: [B, 1 + T·n, D] for
            B/32 and B/16, [B, T·n, D] for H/14.

        Raises:
            ValueError: for a wrong shape, dtype, T or index.
        """
        return self.video_model(video.to(self.device, non_blocking=True), keep_ind, valid_frames)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Token ids [M, L], as `tokenize` gives them -> embeddings [M, D], not normalised.

        ValueError for a wrong shape, dtype or id. Ids on the CPU are cut to the longest text first.
        """
        check_token_ids(token_ids, self.variant)
        # On a GPU cutting would wait for what is queued there; a length that depends on data breaks a graph.
        if token_ids.device.type == "cpu" and not torch.compiler.is_compiling():
            token_ids = cut_to_longest(token_ids)
        token_ids = token_ids.to(self.device, non_blocking=True)

        M, L = token_ids.shape
        x = self.text_token_embedding(token_ids) + self.text_positional_embedding[:L]  # [M, L, width]
        x = self.text_model(as_residual(x))
        x = x[torch.arange(M, device=x.device), token_ids.argmax(dim=-1)]  # at end-of-text, [M, width]
        return self.text_ln_final(x) @ self.text_projection

    def forward(self, batch: dict, sort: bool = True) -> ModelOutput:
        """Both towers; the sort head if there is one, `sort` is true and each sample has several texts; and
        the classification head if there is one.

        batch: "video", and optionally "keep_ind" and "valid_frames", as for encode_video; optionally "text",
        token ids [K·B, L], clip-major: the first clip's text of every sample, then the second's, and so on.
        """
        video_embeds, video_tokens = self.encode_video(
            batch["video"], batch.get("keep_ind"), batch.get("valid_frames")
        )
        class_logits = None if self.head is None else self.head(video_embeds)
        if batch.get("text") is None:
            return ModelOutput(None, video_embeds, None, class_logits)

        B, M = len(video_embeds), len(batch["text"])
        if M % B:
            raise ValueError(f"{M} texts for {B} videos; expected the same number of texts for each video")
        K = M // B
        texts = rearrange(self.encode_text(batch["text"]), "(k b) d -> b k d", k=K)

        order_logits = None
        if sort and self.pred_model is not None and K > 1:
            if self.variant.sort_clips != K:
                raise ValueError(f"{K} texts a video, but the sort head orders {self.variant.sort_clips}")
            # Detached: sorting never teaches the text tower.
            order_logits = self.pred_model(video_tokens, texts.detach())
        return ModelOutput(texts.mean(dim=1), video_embeds, order_logits, class_logits)

    def compile_towers(self, blocks_a_region: int = 4, **options) -> None:
        """torch.compile both towers and the sort head in place, with its options; names in state_dict stay.

        By region: all regions of a tower share one compiled stack of blocks, so that the start takes seconds,
        not minutes, and texts are still cut to the longest. Between the regions, gradients and slices of
        parameters can travel to other processes while the next one computes. Calling a region costs the host
        about as much as ten kernels, so that few large ones are better, but the hooks of single blocks, as
        FSDP has them, need regions of 1.
        """
        if not options.keys() & {"backend", "mode", "options"}:
            # PyTorch 2.11 crashes when it puts our kernels with its static launchers, which cost the host
            # less than the others, into its cache on disk.
            options["options"] = {"bundle_triton_into_fx_graph_cache": False}
        self.video_model.compile_regions(blocks_a_region, **options)
        self.text_model.resblocks.compile_regions(blocks_a_region, **options)
        if self.pred_model is not None:
            for part in self.pred_model.blocks if blocks_a_region == 1 else [self.pred_model]:
                part.forward = torch.compile(part.forward, **options)

    @property
    def stacks(self) -> list[nn.ModuleList]:
        """The transformer blocks of each tower and of the sort head: nearly all of the parameters."""
        sort_blocks = [] if self.pred_model is None else [self.pred_model.blocks]
        return [self.video_model.transformer.resblocks, self.text_model.resblocks, *sort_blocks]

    def save_pretrained(self, save_directory: str | Path, **options) -> str | None:
        """As the mixin's; its README.md is model/model_card.md filled in, unless the folder has one."""
        address = super().save_pretrained(save_directory, **options)
        folder = Path(save_directory)
        # safetensors makes files that only their owner may read
        shutil.copymode(folder / "config.json", folder / "model.safetensors")
        return address

    def generate_model_card(self, *args, **options) -> ModelCard:
        template = Path(__file__).with_name("model_card.md")
        return ModelCard.from_template(
            self._hub_mixin_info.model_card_data,
            template_str=template.read_text(encoding="utf-8"),
            variant=self.variant,
            sort_head=self.pred_model is not None,
            **options,
        )

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **kwargs):
        # The mixin would let missing and left-over weights pass in silence.
        model = super()._from_pretrained(strict=True, **kwargs)
        check_weights(model.state_dict(), kwargs["model_id"])
        return model


def create_model(name: str, sort_head: bool = True, num_frames: int | None = None, **overrides) -> TVTSv2:
    """A TVTSv2 with random weights, on the CPU, in float32.

    Args:
        name: one of VARIANTS.
        sort_head: whether to have the sort head (`pred_model`), which only pre-training needs.
        num_frames: the most frames a clip may have; None is the variant's (12).
        overrides: `attention` (one of model.kernels.ATTENTION_BACKENDS), `activation_checkpointing` (0: off,
            k: every k-th block of both towers is recomputed in backward, "mlp": the activations in all MLPs
            are), `freeze_text_embeddings` (False, as official), `class_names` (of a classification head;
            None: there is none), `trained_text_blocks`, `temporal_attention_init`, or any other of Variant.

    Raises:
        ValueError: for an unknown name or override, listing those there are.
    """
    return TVTSv2(name, sort_head=sort_head, num_frames=num_frames, **overrides)


def is_new_parameter(name: str) -> bool:
    """Whether a parameter is new in TVTSv2 (larger learning rate) rather than one of CLIP's.

    New are the heads and, in the video tower, `timeattn` and `ln_3`. The official release counts
    `temporal_embedding` among CLIP's.
    """
    return name.startswith(("pred_model.", "head.")) or ".timeattn." in name or ".ln_3." in name
