"""A classification head on the video embedding, which fine-tuning on labelled videos adds to a model."""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, rms_norm

from .checks import CheckpointError

PREFIX = "head."  # before its names in a model's state_dict


class ClassHead(nn.Linear):
    """Video embeddings [B, D], as the model gives them -> logits [B, classes].

    Embeddings are brought to a root mean square of 1 first, so that its learning rate does not depend on
    their scale, and only their direction counts, as in zero-shot recognition. The names of the classes are a
    buffer, as bytes of JSON: they travel with the weights into whatever form of file.
    """

    names: Tensor

    def __init__(self, embed_dim: int, class_names: Sequence[str]):
        super().__init__(embed_dim, len(class_names))
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        text = json.dumps(list(class_names)).encode()
        self.register_buffer("names", torch.tensor(list(text), dtype=torch.uint8))

    @property
    def class_names(self) -> list[str]:
        return json.loads(bytes(self.names.tolist()))

    @torch.no_grad()
    def begin_at(self, texts: Tensor, temperature: float) -> None:
        """Make it zero-shot recognition: logits are cosines to the classes' texts over the temperature.

        As WiSE-FT begins (arXiv 2109.01903). texts: embeddings [prompts, classes, D]; a class is the mean of
        its prompts' normalised ones.
        """
        directions = normalize(normalize(texts.float(), dim=-1).mean(dim=0), dim=-1)
        self.weight.copy_(directions / (temperature * self.in_features**0.5))
        self.bias.zero_()

    def forward(self, embeds: Tensor) -> Tensor:
        return super().forward(rms_norm(embeds.float(), embeds.shape[-1:]))


def head_of(state: Mapping[str, Tensor]) -> ClassHead | None:
    """The head in what `read_state_dict` gave; None where there is none. Raises CheckpointError."""
    own = {name.removeprefix(PREFIX): x for name, x in state.items() if name.startswith(PREFIX)}
    if not own:
        return None
    try:
        names = json.loads(bytes(own["names"].tolist()))
        head = ClassHead(own["weight"].shape[1], [str(name) for name in names])
        head.load_state_dict(own)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"its classification head is damaged: {error}") from error
    return head
