"""Packages that only some users need."""

import importlib
import os
from types import ModuleType

import pytest


def extra(module: str) -> ModuleType:
    """An optional package. Skips the test, or the file, that lacks it; CI has all and demands them."""
    if os.environ.get("REQUIRE_EXTRAS"):
        return importlib.import_module(module)
    return pytest.importorskip(module)
