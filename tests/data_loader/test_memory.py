"""Memory that is kept: a process that reads clips touches the same pages again."""

import platform
import subprocess
import sys

import pytest

from utils.config import REPOSITORY

# Pages that a process maps while it allocates four arrays of 8 MB and frees them, 20 times over.
PAGES = """
import resource, sys
import numpy as np
from data_loader.readers.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def read():
    clips = [np.zeros(8 * 2**20, np.uint8) + 1 for _ in range(4)]
read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    read()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has these settings")
def test_freed_memory_is_not_mapped_anew():
    def pages(how):
        return int(subprocess.check_output([sys.executable, "-c", PAGES, how], cwd=REPOSITORY))

    assert pages("kept") < pages("default") / 10
