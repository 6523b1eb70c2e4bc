#!/usr/bin/env bash
# Re-encodes a folder of videos for fast loading:   scripts/prepare_videos.sh IN OUT [--help for the options]
# Interrupted, the same command goes on where it was. Exit status: 0 all done, 1 some failed (listed), 2 a wrong call
# or a folder that cannot be written.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
        PYTHON=python
    elif [ -x "$root/.venv/bin/python" ]; then
        PYTHON=$root/.venv/bin/python
    else
        PYTHON=python3
    fi
fi
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 exec "$PYTHON" -m data_loader.prepare.videos "$@"
