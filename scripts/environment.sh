# Sourced by the other scripts: sets `root`, and `python`, an interpreter that has requirement.txt installed.
#
# It makes .venv in the repository and installs into it, once for each state of requirement.txt. pip's own settings (another index, a proxy) are respected. From the environment:
#   PYTHON  interpreter that makes .venv (default: python3)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "error: $*" >&2
    exit 1
}

prepare_environment() {
    local base=${PYTHON:-python3} venv=$root/.venv wanted stamp
    command -v "$base" >/dev/null || fail "no $base on this machine. Install it: apt-get install python3 python3-venv"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$base" --version) is too old: Python 3.11 or newer is needed (name one with PYTHON=python3.12)"
    if [ ! -x "$venv/bin/python" ]; then
        echo "making the virtual environment $venv"
        "$base" -m venv "$venv" || {
            rm -rf "$venv"
            fail "could not make a virtual environment. Install its package: apt-get install python3-venv"
        }
    fi
    python=$venv/bin/python
    stamp=$venv/installed-requirement
    wanted=$(cat "$root/requirement.txt")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing requirement.txt into $venv (PyTorch is large: some minutes, once)"
        "$python" -m pip install --quiet --disable-pip-version-check -r "$root/requirement.txt" ||
            fail "the installation failed; its reason stands above. Run the same command again to go on."
        printf '%s\n' "$wanted" >"$stamp"
    fi
}

prepare_environment
