"""Models by torch.hub.load: from a clone, in any folder, with no packages but those that the model needs
(pip install torch einops open_clip_torch huggingface_hub safetensors).

import torch
hub = "path/of/this/folder"
model = torch.hub.load(hub, "tvtsv2_b_16", checkpoint="TVTSv2_ViT_B_16.pth", source="local")
transform = torch.hub.load(hub, "transform", source="local")
tokenize = torch.hub.load(hub, "tokenizer", source="local")
video, _ = model.encode_video(transform(frames)[None])  # frames uint8 [12, 3, H, W] -> [1, 512]
texts = model.encode_text(tokenize(["a dog runs", "a red car"]))  # [2, 512]
"""

from __future__ import annotations

import sys as _sys
from collections.abc import Callable as _Callable
from collections.abc import Iterator as _Iterator
from contextlib import contextmanager as _contextmanager
from pathlib import Path as _Path
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:  # torch.hub.list shows all that has no underscore
    from torch import Tensor as _Tensor

    from model import TVTSv2 as _TVTSv2

dependencies = [
    "torch",
    "einops",
    "huggingface_hub",
    "safetensors",
    "open_clip",
    "numpy",
    "PIL",
]
_FOLDER = _Path(__file__).resolve().parent


def tvtsv2_b_32(checkpoint: str | None = None, sort_head: bool = False, **options: _Any) -> _TVTSv2:
    """TVTSv2 B/32, in float32, on the CPU, in evaluation mode; embeddings of 512 numbers.

    Args:
        checkpoint: a released or training checkpoint (`python -m model.download TVTSv2_B_32` fetches the
            released one); None gives random weights.
        sort_head: whether to have the head that puts transcripts in order. Released files hold none.
        options: others of model.create_model, such as num_frames.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is missing, cannot be read or is of another model.
    """
    return _load("TVTSv2_B_32", checkpoint, sort_head, options)


def tvtsv2_b_16(checkpoint: str | None = None, sort_head: bool = False, **options: _Any) -> _TVTSv2:
    """TVTSv2 B/16; embeddings of 512 numbers. Arguments as of tvtsv2_b_32."""
    return _load("TVTSv2_B_16", checkpoint, sort_head, options)


def tvtsv2_h_14(checkpoint: str | None = None, sort_head: bool = False, **options: _Any) -> _TVTSv2:
    """TVTSv2 H/14; embeddings of 1,024 numbers. Arguments as of tvtsv2_b_32."""
    return _load("TVTSv2_H_14", checkpoint, sort_head, options)


def tokenizer() -> _Callable[[str | list[str]], _Tensor]:
    """The tokenizer of all three models: a text or a list of them -> int64 [M, 77], for encode_text."""
    _check_names("CLIP")
    from CLIP import tokenize

    return tokenize


def transform(kind: str = "features", size: int = 224) -> _Callable[[_Tensor], _Tensor]:
    """What makes decoded frames, uint8 [T, 3, H, W], the model's input, uint8 [T, 3, size, size].

    Args:
        kind: "features", as the official feature extraction squashes frames; "test", as the official
            evaluation resizes and crops them; "train", with a random crop.

    Raises:
        ValueError: another kind.
    """
    if kind not in ("features", "test", "train"):
        raise ValueError(f"unknown kind of transform {kind!r}; there are features, test, train")
    transforms = _data_module("transforms")
    made: _Callable[[_Tensor], _Tensor]
    made = transforms.feature_transform(size) if kind == "features" else transforms.clip_transform(kind, size)
    return made


def _load(arch: str, checkpoint: str | None, sort_head: bool, options: dict[str, _Any]) -> _TVTSv2:
    _check_names("model", "CLIP", "OpenCLIP")
    with _own("utils"):
        from model import create_model, load_checkpoint

    model = create_model(arch, sort_head=sort_head, **options)
    if checkpoint is not None:
        report = load_checkpoint(model, checkpoint)
        if report.fresh:
            print(report, file=_sys.stderr)
    return model.eval()


@_contextmanager
def _own(name: str) -> _Iterator[None]:
    """Imports within find our folder of that name, though the caller has a module called so as well."""

    def loaded() -> list[str]:
        return [key for key in _sys.modules if key == name or key.startswith(f"{name}.")]

    theirs = {key: _sys.modules.pop(key) for key in loaded()}
    try:
        yield
    finally:
        for key in loaded():
            del _sys.modules[key]
        _sys.modules.update(theirs)


def _check_names(*names: str) -> None:
    """Raises ImportError where a module of the caller's would be taken for the folder of that name here."""
    for name in names:
        loaded = _sys.modules.get(name)
        places = [str(_Path(place).resolve()) for place in getattr(loaded, "__path__", [])]
        if loaded is not None and str(_FOLDER / name) not in places:
            where = getattr(loaded, "__file__", None) or ", ".join(places)
            raise ImportError(
                f"a module called {name!r} is loaded already, {where}, and would be taken for "
                f"{_FOLDER / name}: rename yours"
            )


def _data_module(name: str) -> _Any:
    """A file of data_loader/ by itself: the whole package imports what reads videos and lists, too."""
    from importlib.util import module_from_spec, spec_from_file_location

    known = f"tvtsv2_{name}"
    if known not in _sys.modules:
        spec = spec_from_file_location(known, _FOLDER / "data_loader" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        _sys.modules[known] = module
    return _sys.modules[known]
