"""Linear layers in fp8 with gradients, for training.

Gradients are quantised by tokens, as inputs are, and multiplied by transposed weights. Weights stay what the
optimiser and checkpoints have; each forward pass quantises them anew.

The weights' gradients are sums over all tokens, whose scales have to be the same for all: both factors are
transposed for them. For the layers of an MLP that costs less than it saves; for those of attention it does
not, and these multiply what was not quantised.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..precision import dtype_of_products
from .activation import activation_backward, quantize_activation
from .fp8 import Quantized, multiply, multiply_over_tokens, quantize_for_training, quantize_rows, transpose
from .projection import Fp8Layer


class TrainedFp8Linear(Fp8Layer, nn.Linear):
    """An nn.Linear, with its parameters, that multiplies in fp8: [..., in] -> [..., out]."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias

    def with_bias(self, x: Tensor | Quantized, bias: Tensor) -> Tensor:
        x = x if isinstance(x, Quantized) else quantize_for_training(x)
        return _Product.apply(x.exact, x.values, x.scales, self.weight, bias, dtype_of_products(x.scales))


class _Product(torch.autograd.Function):
    """values · scales · weightᵀ + bias; what is quantised gets its gradient as `exact`."""

    @staticmethod
    def forward(ctx: Any, exact, values, scales, weight, bias, dtype):
        w = quantize_rows(weight)
        ctx.weight_dtype, ctx.bias_dtype = weight.dtype, bias.dtype
        ctx.save_for_backward(exact, w.values, w.scales)
        return multiply(Quantized(values, scales), w, bias, dtype)

    @staticmethod
    def backward(ctx: Any, grad):
        exact, *w = ctx.saved_tensors
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_input = multiply(quantize_rows(grad), transpose(Quantized(*w)), None, grad.dtype)
        if ctx.needs_input_grad[3]:
            of_weight = grad.flatten(0, -2).t() @ exact.flatten(0, -2).to(grad.dtype)
            of_weight = of_weight.to(ctx.weight_dtype)
        if ctx.needs_input_grad[4]:
            of_bias = grad.flatten(0, -2).sum(0).to(ctx.bias_dtype)
        return of_input, None, None, of_weight, of_bias, None


def multiply_mlp(x: Tensor | Quantized, c_fc: nn.Linear, c_proj: nn.Linear, activation: str) -> Tensor:
    """c_proj(activation(c_fc(x))), [..., width] -> [..., width].

    What the activation makes is not kept: its backward reads all that it needs to make it once more.
    """
    x = x if isinstance(x, Quantized) else quantize_for_training(x)
    return _Mlp.apply(
        *(x.exact, x.values, x.scales, c_fc.weight, c_fc.bias, c_proj.weight, c_proj.bias),
        *(activation, dtype_of_products(x.scales)),
    )


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exact, values, scales, w_fc, b_fc, w_proj, b_proj, activation, dtype):
        fc, proj = quantize_rows(w_fc), quantize_rows(w_proj)
        hidden = multiply(Quantized(values, scales), fc, b_fc, dtype)
        ctx.activation, ctx.weight_dtype, ctx.bias_dtype = activation, w_fc.dtype, b_fc.dtype
        ctx.save_for_backward(values, scales, hidden, *fc[:2], *proj[:2])
        return multiply(quantize_activation(hidden, activation), proj, b_proj, dtype)

    @staticmethod
    def backward(ctx: Any, grad):
        values, scales, hidden, *weights = ctx.saved_tensors
        fc, proj = Quantized(*weights[:2]), Quantized(*weights[2:])
        quantized = quantize_rows(grad)
        grad_out = multiply(quantized, transpose(proj), None, grad.dtype)
        out, of_hidden, b_fc_parts = activation_backward(grad_out, hidden, ctx.activation)
        of_input = of_w_fc = of_b_fc = of_w_proj = of_b_proj = None
        if ctx.needs_input_grad[0]:
            of_input = multiply(of_hidden, transpose(fc), None, grad.dtype)
        if ctx.needs_input_grad[3]:
            x = Quantized(values, scales)
            of_w_fc = multiply_over_tokens(of_hidden, x, grad.dtype, ctx.weight_dtype)
        if ctx.needs_input_grad[4]:
            of_b_fc = b_fc_parts.sum(0).to(ctx.bias_dtype)
        if ctx.needs_input_grad[5]:
            of_w_proj = multiply_over_tokens(quantized, out, grad.dtype, ctx.weight_dtype)
        if ctx.needs_input_grad[6]:
            of_b_proj = grad.flatten(0, -2).sum(0).to(ctx.bias_dtype)
        return of_input, None, None, of_w_fc, of_b_fc, of_w_proj, of_b_proj, None, None
