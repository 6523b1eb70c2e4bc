"""OpenCLIP's ViT-H/14 weights: where they lie."""

from pathlib import Path

from utils.config import USER_ROOT

FOLDER = USER_ROOT / "OpenCLIP" / "models"
REPOSITORY = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def find_weights(clip_model: str = "ViT-H-14", folder: str | Path = FOLDER) -> Path:
    """The file of "ViT-H-14", in the folder itself or in the Hugging Face hub's cache layout below it.

    FileNotFoundError says where to get it.
    """
    folder = Path(folder)
    cached = sorted(folder.glob(f"models--{REPOSITORY.replace('/', '--')}/snapshots/*/"))
    for path in (place / file for place in (folder, *cached) for file in FILES):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no {' or '.join(FILES)} in {folder}: python -m model.download {clip_model} fetches it, or download "
        f"it from {REPOSITORY} on the Hugging Face hub and put it there, or give its path"
    )
