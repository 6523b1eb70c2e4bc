"""The parts of a block that are faster as Triton kernels, each behind a function with a plain PyTorch form.

Which form runs is decided here and nowhere else: the kernels on a GPU in half precision, if Triton is
installed and the sizes fit; PyTorch everywhere else. Results are the same but for rounding.
"""

from .activation import ACTIVATIONS, activate, project_hidden
from .attention import ATTENTION_BACKENDS, attend, divided_attention
from .fp8 import Fp8Linear, Quantized, check_fp8, quantize_rows, scales_for
from .fp8_training import TrainedFp8Linear, multiply_mlp
from .norm import add_norm, project_branch
from .projection import Projected

__all__ = [
    "ACTIVATIONS",
    "ATTENTION_BACKENDS",
    "Fp8Linear",
    "Projected",
    "Quantized",
    "TrainedFp8Linear",
    "activate",
    "add_norm",
    "attend",
    "check_fp8",
    "divided_attention",
    "multiply_mlp",
    "project_branch",
    "project_hidden",
    "quantize_rows",
    "scales_for",
]
