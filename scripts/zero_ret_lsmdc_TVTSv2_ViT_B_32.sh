#!/usr/bin/env bash
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" test.py --config downstream/configs/lsmdc.json --arch TVTSv2_B_32 "$@"
