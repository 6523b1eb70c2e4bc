# Sourced by run: installs the optional reader torchcodec and the FFmpeg libraries that it needs, so that its tests run.
# They are then required to; where the libraries cannot be installed, the tests skip and a warning says so.
source scripts/environment.sh

install_ffmpeg() {
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    "${as_root[@]}" apt-get -qq update &&
        "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends ffmpeg >/dev/null
}

if { ldconfig -p | grep -q libavutil || install_ffmpeg; } &&
    { "$python" -c 'import torchcodec' 2>/dev/null || "$python" -m pip install --quiet torchcodec; }; then
    export REQUIRE_TORCHCODEC=1
else
    echo "warning: torchcodec or FFmpeg's libraries could not be installed; the tests of that reader skip" >&2
fi
