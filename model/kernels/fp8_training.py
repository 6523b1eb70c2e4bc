"""Linear layers in fp8 with gradients, for training.

Of a layer's three products the outputs and the inputs' gradients are of e4m3 numbers, the weights' gradients
of bf16: they are sums over all tokens, whose scales would have to be the same for all, and they stay as exact
as autocast has them. Gradients are quantised by tokens, as inputs are. Weights stay what the optimiser and
checkpoints have; each forward pass quantises them anew, each backward pass transposes what it left.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..precision import dtype_of_products
from .activation import activation_backward, quantize_activation
from .fp8 import Quantized, multiply, quantize_for_training, quantize_rows, transpose
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
            of_weight = _of_weight(grad, exact, ctx.weight_dtype)
        if ctx.needs_input_grad[4]:
            of_bias = grad.flatten(0, -2).sum(0).to(ctx.bias_dtype)
        return of_input, None, None, of_weight, of_bias, None


def _of_weight(grad: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    return (grad.flatten(0, -2).t() @ x.flatten(0, -2).to(grad.dtype)).to(dtype)


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
        ctx.save_for_backward(exact, hidden, *fc[:2], *proj[:2])
        return multiply(quantize_activation(hidden, activation), proj, b_proj, dtype)

    @staticmethod
    def backward(ctx: Any, grad):
        exact, hidden, fc_values, fc_scales, proj_values, proj_scales = ctx.saved_tensors
        fc, proj = Quantized(fc_values, fc_scales), Quantized(proj_values, proj_scales)
        grad_out = multiply(quantize_rows(grad), transpose(proj), None, grad.dtype)
        out, of_hidden, quantized, b_fc_parts = activation_backward(grad_out, hidden, ctx.activation)
        of_input = of_w_fc = of_b_fc = of_w_proj = of_b_proj = None
        if ctx.needs_input_grad[0]:
            of_input = multiply(quantized, transpose(fc), None, grad.dtype)
        if ctx.needs_input_grad[3]:
            of_w_fc = _of_weight(of_hidden, exact, ctx.weight_dtype)
        if ctx.needs_input_grad[4]:
            of_b_fc = b_fc_parts.sum(0).to(ctx.bias_dtype)
        if ctx.needs_input_grad[5]:
            of_w_proj = _of_weight(grad, out, ctx.weight_dtype)
        if ctx.needs_input_grad[6]:
            of_b_proj = grad.flatten(0, -2).sum(0).to(ctx.bias_dtype)
        return of_input, None, None, of_w_fc, of_b_fc, of_w_proj, of_b_proj, None, None
