"""A moving average of the trained weights, which is what is validated, marked as the best, and used later."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn


class WeightAverage:
    """Averages the parameters that train; the others are those of the model anyway.

    timm's average, of the parameters rather than of the model: a copy of the model would be compiled anew, or
    run the code that is compiled for the original. Its decay rises to `decay` over the first steps, so that
    the weights of the start are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.names, self.trained = list(named), nn.ParameterList(named.values())
        self.average = ModelEmaV3(self.trained, decay=decay, use_warmup=True)

    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 1."""
        self.average.update(self.trained, step)

    def averaged(self) -> dict[str, Tensor]:
        """Name -> averaged parameter."""
        return dict(zip(self.names, self.average.module.parameters(), strict=True))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the averaged weights; it gets its own back, to the bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for own, average in zip(self.trained, self.average.module.parameters(), strict=True):
            kept = own.clone()
            own.copy_(average)
            average.copy_(kept)

    @torch.no_grad()
    def restore(self, trained: Mapping[str, Tensor] | None) -> None:
        """Of a model that holds a checkpoint's averaged weights: keep those, and give it the trained ones.

        trained: by name; None where the checkpoint has no average: it begins with the model's weights.

        Raises ValueError: the checkpoint's run trained other parameters.
        """
        self.average.set(self.trained)
        if trained is None:
            return
        if {*trained} != {*self.names}:
            raise ValueError("the checkpoint's run trained other parameters; set arch as it was there")
        for name, parameter in zip(self.names, self.trained, strict=True):
            parameter.copy_(trained[name])
