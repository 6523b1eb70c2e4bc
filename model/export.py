"""A tower with its weights as a graph that runs without this code.

The number of clips or texts at once is free; clips have as many frames as the weights want, uint8
pixels, which the graph normalises; texts are token ids [M, 77]. It gives embeddings [B, D], not normalised.

    python -m model.export TVTSv2_ViT_B_16.pth video.pt2 --tower video --format torch
    python -m model.export TVTSv2_ViT_B_16.pth text.onnx --tower text --format onnx

Exit status: 0 done, 1 the graph computes something else, 2 it cannot be made or written.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.commands import CommandParser
from utils.errors import one_line_interrupts

from .convert import read_model
from .tvtsv2 import TVTSv2

INPUTS = {"video": "video", "text": "token_ids"}
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LARGEST = 1e-3  # difference to the model itself, of its largest number


class Tower(nn.Module):
    """Clips or token ids -> embeddings [B, D]."""

    def __init__(self, model: TVTSv2, tower: str):
        super().__init__()
        self.model = model
        self.tower = tower

    def forward(self, x: Tensor) -> Tensor:
        return self.model.encode_text(x) if self.tower == "text" else self.model.encode_video(x)[0]


def export(
    source: str | Path,
    path: str | Path,
    tower: str,
    format: str,
    overwrite: bool = False,
    arch: str | None = None,
) -> str:
    """Write a tower of a checkpoint, run what was written and compare; returns what was done, to be printed.

    Args:
        tower: "video" or "text". format: "torch" (for torch.export.load) or "onnx".

    Raises:
        FileNotFoundError, ValueError: as convert. FileExistsError: `path` is a folder, or a file that is not
            to be overwritten.
        ArithmeticError: what was written computes something else; it is removed.
        ModuleNotFoundError: a package that ONNX needs is missing; says how to install it.
    """
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} would be replaced; name another file, or --overwrite")
    if format == "onnx":
        _need_packages()
    model, report = read_model(source, arch)
    module = Tower(model.eval(), tower)
    example = _example(model, tower, 2)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        path.parent.mkdir(parents=True, exist_ok=True)
        if format == "onnx":
            onnx = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[INPUTS[tower]], output_names=["embeds"]
            )
            assert onnx is not None
            onnx.save(path)
            run = open_onnx(path)
        else:
            torch.export.save(program, path)
            run = torch.export.load(path).module()
        differences = []
        for batch in (1, 3):
            x = _example(model, tower, batch)
            expected = module(x)
            differences.append(float((run(x) - expected).abs().max() / expected.abs().max()))
    if not max(differences) <= LARGEST:
        path.unlink()
        raise ArithmeticError(f"{path} gave embeddings that differ by {max(differences):.1e}; it is removed")
    return (
        f"{report}\n{tower} tower of {model.variant.name} written to {path}, input {INPUTS[tower]} "
        f"{example.dtype} {['B', *example.shape[1:]]}, embeds [B, {model.variant.embed_dim}]; "
        f"differs from the model by {max(differences):.1e} of its largest number"
    )


def open_onnx(path: str | Path) -> Callable[[Tensor], Tensor]:
    """A written graph as a function, on the CPU, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(None, {given.name: x.numpy()})[0])


def _example(model: TVTSv2, tower: str, batch: int) -> Tensor:
    """Random clips, or texts of different lengths: words, end-of-text, zeros."""
    v, generator = model.variant, torch.Generator().manual_seed(batch)
    if tower == "video":
        shape = (batch, v.num_frames, 3, v.image_size, v.image_size)
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    ids = torch.randint(1, v.vocab_size - 2, (batch, v.context_length), generator=generator)
    for row, last in enumerate(range(v.context_length - 1, 0, -v.context_length // 4)[:batch]):
        ids[row, last] = v.vocab_size - 1
        ids[row, last + 1 :] = 0
    return ids


def _need_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"--format onnx needs packages: pip install {' '.join(missing)}")


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 where the graph does not compute the same, 2 when it cannot be made or written."""
    parser = CommandParser("python -m model.export", __doc__)
    parser.add_argument("source", help="a released or training checkpoint (.pth, .safetensors, .dcp)")
    parser.add_argument("file", help="what to write, such as video.pt2 or video.onnx")
    parser.add_argument("--tower", choices=INPUTS, required=True, help="which half of the model")
    parser.add_argument(
        "--format", choices=("torch", "onnx"), required=True, help="for torch.export.load, or ONNX"
    )
    parser.add_argument("--arch", metavar="NAME", help="which model it is (default: read off the weights)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    args = parser.parse_args(argv)
    try:
        print(export(args.source, args.file, args.tower, args.format, args.overwrite, args.arch))
    except ArithmeticError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
