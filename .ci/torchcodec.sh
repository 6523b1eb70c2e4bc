# Sourced by run: installs the optional reader torchcodec and the FFmpeg libraries that it needs, so that its tests run.
# They are then required to. Where it cannot be had, or does not fit PyTorch yet, they skip and a warning says so.
source scripts/environment.sh

install_ffmpeg() {
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    "${as_root[@]}" apt-get -qq update &&
        "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends ffmpeg >/dev/null
}

torchcodec_loads() {
    "$python" - <<'END'
from torchcodec.decoders import VideoDecoder

try:
    VideoDecoder(b"no video")
except (RuntimeError, ValueError) as error:  # the libraries are loaded at the first use
    if "libtorchcodec" in str(error):
        raise
END
}

if [[ $(ldconfig -p) != *libavutil* ]]; then
    install_ffmpeg || true
fi
if "$python" -m pip install --quiet --disable-pip-version-check torchcodec && torchcodec_loads; then
    export REQUIRE_TORCHCODEC=1
else
    echo "warning: torchcodec or FFmpeg's libraries cannot be used here; the tests of that reader skip" >&2
fi
