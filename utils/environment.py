"""What a result was made with: commit, package versions, Python, machine."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from utils.config import INSTALLED, REPOSITORY

BF16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # Intel's, AMD's and Intel's, Arm's


def versions() -> dict[str, str | None]:
    """Python, the required packages and the commit of this repository; None where there is none.

    Installed by pip, there is no commit, but "tvtsv2" and its version.
    """
    found: dict[str, str | None] = {"python": platform.python_version(), "commit": _git_commit()}
    for line in _requirements():
        if line and not line.startswith("#"):
            name = re.split(r"[<>=!~; \[]", line)[0]
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = None
    return found


def environment() -> dict[str, Any]:
    """The command, `versions`, the number of processes and the card."""
    found = versions()
    return {
        "command": sys.argv,
        "commit": found.pop("commit"),
        "python": found.pop("python"),
        "packages": found,
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
    }


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str] | None:
    """Those for bf16 products that the processor has, by Linux's names; None where that is not known."""
    if not cpuinfo.is_file():
        return None
    flags = re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    return sorted(set(" ".join(flags).split()) & BF16_FLAGS) if flags else None


def _requirements() -> list[str]:
    if not INSTALLED:
        return (REPOSITORY / "requirement.txt").read_text().splitlines()
    required = importlib.metadata.requires("tvtsv2") or []
    return ["tvtsv2", *(line for line in required if "extra ==" not in line)]


def _git_commit() -> str | None:
    if INSTALLED:
        return None  # the folder may lie in a repository that is not ours
    try:
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # a copy without its history, or no git: nothing to say
