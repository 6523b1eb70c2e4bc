#!/usr/bin/env bash
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" test.py --config downstream/configs/didemo.json --arch TVTSv2_H_14 "$@"
