#!/usr/bin/env bash
# Make the environment and run the tests: bash scripts/test.sh [arguments of pytest]
#   bash scripts/test.sh tests/model        one folder
#   bash scripts/test.sh -m heavy           those that take long or gigabytes; CI runs them too
#   bash scripts/test.sh -m thorough        more of what other tests do
set -euo pipefail

case " $* " in *" --help "* | *" -h "*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
exec "$python" -m pytest "$@"
