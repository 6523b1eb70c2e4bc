#!/usr/bin/env bash
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" train.py --config configs/dist-yt-web-pt-vit-b-32.json "$@"
