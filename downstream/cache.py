"""Embeddings kept on disk, one row a text or video, and used again as long as their inputs are the same."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from utils.files import whole_file


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; of a folder, what `sha256sum * | sha256sum` gives in it."""
    if path.is_dir():
        lines = [f"{sha256_of(file)}  {file.name}\n" for file in sorted(path.iterdir())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_key(path: str | Path) -> str:
    """A video's identity: its path, size and time of last change (-1 where there is no such file)."""
    try:
        status = os.stat(path)
    except OSError:
        return json.dumps([str(path), -1, -1])
    return json.dumps([str(path), status.st_size, status.st_mtime_ns])


class EmbeddingCache:
    """A safetensors file of rows [M, D] named by keys, valid for one `fingerprint`.

    The fingerprint holds whatever all rows depend on (checkpoint hash, frames, precision …); a file with
    another one is ignored and then overwritten. Keys are texts, or `file_key`s: a video that changed is
    embedded anew, the others are not.
    """

    def __init__(self, path: str | Path, fingerprint: Mapping[str, Any]):
        self.path = Path(path)
        self.fingerprint = json.dumps(fingerprint, sort_keys=True)

    def load(self) -> dict[str, torch.Tensor]:
        """The rows on disk that are still valid, by key; none when there is no usable file."""
        if not self.path.is_file():
            return {}
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata() or {}
                if facts.get("fingerprint") != self.fingerprint:
                    return {}
                return dict(zip(json.loads(facts["keys"]), file.get_tensor("embeddings"), strict=True))
        except SafetensorError:  # cut short, by a full disk for one
            return {}

    def save(self, keys: Sequence[str], rows: torch.Tensor) -> None:
        """Write rows [M, D] under their keys, in place of what was there."""
        facts = {"fingerprint": self.fingerprint, "keys": json.dumps(list(keys))}
        contents = save({"embeddings": rows.contiguous()}, facts)
        with whole_file(self.path) as unfinished:
            unfinished.write_bytes(contents)
