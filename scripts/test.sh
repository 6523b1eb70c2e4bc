#!/usr/bin/env bash
# Make the environment and run every test: bash scripts/test.sh [arguments of pytest]
#   bash scripts/test.sh -m 'not heavy'     leaves out what takes minutes or gigabytes
#   bash scripts/test.sh tests/model        one folder
#   bash scripts/test.sh -m thorough        more of what other tests do, left out otherwise
set -euo pipefail

case " $* " in *" --help "* | *" -h "*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
exec "$python" -m pytest "$@"
