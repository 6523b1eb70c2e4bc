#!/usr/bin/env bash
# Make the environment and run every test: bash scripts/test.sh [arguments of pytest]
#   bash scripts/test.sh -m 'not heavy'     leaves out what takes minutes or gigabytes
#   bash scripts/test.sh tests/model        one folder
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
exec "$python" -m pytest "$@"
