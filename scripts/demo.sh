#!/usr/bin/env bash
# From nothing to a trained, evaluated model: environment, data, pre-training, evaluation, features, a table.
# Run again, it reuses what is there; after an interruption it goes on where it was.
#
#   bash scripts/demo.sh [--seed N] [--scale F] [--output DIR] [--set KEY=VALUE ...]
#
#   --seed N      seed of the training (default 0)
#   --scale F     factor on the amount of data and on the length of the training (default 1; 0.05 for a quick look)
#   --output DIR  results (default results/demo; another scale and seed add to it: results/demo-x0.05-seed1)
#   --set ...     overrides of configs/demo.json
set -euo pipefail

case " $* " in *" --help "* | *" -h "*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
# Threads that spin while they wait would slow each other down tenfold on a machine that is busy with other work.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
exec "$python" -m downstream.demo "$@"
