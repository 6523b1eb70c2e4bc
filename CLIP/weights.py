"""OpenAI's CLIP weights: where they lie, and how its TorchScript archives are read."""

import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "models"
_RELEASE = "https://openaipublic.azureedge.net/clip/models"
SOURCES = {  # file -> where OpenAI's CLIP release has it
    "ViT-B-32.pt": f"{_RELEASE}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "ViT-B-16.pt": f"{_RELEASE}/5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
}


def find_weights(clip_model: str, folder: str | Path = FOLDER) -> Path:
    """The file of "ViT-B-32" or "ViT-B-16" in the folder; FileNotFoundError says where to get it."""
    path = Path(folder) / f"{clip_model}.pt"
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path.name} in {path.parent}: python -m model.download {clip_model} fetches it, or download "
            f"it from OpenAI's CLIP release, {SOURCES[path.name]}, and put it there, or give its path"
        )
    return path


def is_torchscript(path: str | Path) -> bool:
    """Whether the file is a TorchScript archive, the form in which OpenAI released CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive, on the CPU. TorchScript's own reader: no Python pickle is run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # new models should not be saved so; these have been
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
