"""OpenAI's CLIP weights: where they lie, and whether a file is the published one."""

from pathlib import Path

from utils.config import USER_ROOT
from utils.files import sha256_of

FOLDER = USER_ROOT / "CLIP" / "models"
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


def differs_from_published(clip_model: str, path: str | Path) -> str | None:
    """What to warn of where a file is not OpenAI's of that name; None where it is, to the last bit."""
    published = SOURCES[f"{clip_model}.pt"].split("/")[-2]
    found = sha256_of(Path(path))
    if found == published:
        return None
    return f"{path} is not the {clip_model} that OpenAI published: its SHA-256 is {found}, not {published}"
