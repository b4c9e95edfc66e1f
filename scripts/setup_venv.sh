#!/bin/sh
# Create or update the environment in $VENV: the one thing behind `make setup`.
#
#   VENV     directory (.venv)
#   PYTHON   interpreter; found by itself where empty
#   DEVICE   auto | cpu | cuda13 | cuda12
#   EXTRAS   further extras of pyproject.toml, comma-separated
#
# Idempotent: the Makefile calls it only when the stamp is older than what it depends on.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-}
DEVICE=${DEVICE:-auto}
EXTRAS=${EXTRAS:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1

# Run the candidate instead of looking for its name: a pyenv shim exists for versions that are not enabled.
usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' \
        </dev/null >/dev/null 2>&1
}

if [ -n "$PYTHON" ]; then
    usable "$PYTHON" || {
        echo "error: PYTHON=$PYTHON is not a Python 3.11 to 3.14 with the modules venv and ensurepip" >&2
        exit 1
    }
else
    shelved=
    if command -v pyenv >/dev/null 2>&1; then shelved=$(pyenv root)/versions; fi
    for candidate in python3.14 python3.13 python3.12 python3.11 python3 python \
        ${shelved:+"$shelved"/3.14*/bin/python "$shelved"/3.13*/bin/python} \
        ${shelved:+"$shelved"/3.12*/bin/python "$shelved"/3.11*/bin/python}; do
        if usable "$candidate"; then PYTHON=$candidate; break; fi
    done
    [ -n "$PYTHON" ] || {
        echo "error: no Python 3.11 to 3.14 with the modules venv and ensurepip was found" >&2
        echo "       (Debian and Ubuntu: install python3-venv), or name one: make setup PYTHON=/path/to/python3" >&2
        exit 1
    }
fi

case $DEVICE in
    auto) build=$("$PYTHON" scripts/detect_device.py) ;;
    cpu | cuda13 | cuda12) build=$DEVICE ;;
    *) echo "error: DEVICE=$DEVICE is none of auto, cpu, cuda13, cuda12" >&2; exit 1 ;;
esac

constraints="constraints.txt"
extras=$build,dev
case $build in
    cpu) extras=$extras,kernels ;;
    cuda12) constraints="constraints-cuda12.txt" ;;
esac
[ -z "$EXTRAS" ] || extras=$extras,$EXTRAS

# Two builds of XGBoost or CuPy in one environment overwrite each other's files, and pip does not object:
# another build, or another Python, starts from an empty directory.
key="$build $("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
# So does one whose creation was interrupted before it had pip.
if [ -d "$VENV" ] && { [ "$(cat "$VENV/gpuscalp-build" 2>/dev/null || :)" != "$key" ] \
    || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; }; then
    [ -f "$VENV/pyvenv.cfg" ] || { echo "error: $VENV exists and is no virtual environment" >&2; exit 1; }
    rm -rf "$VENV"
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
echo "$key" > "$VENV/gpuscalp-build"

echo "installing gpuscalp[$extras] into $VENV with $("$VENV/bin/python" --version)" >&2
# The build back end comes from the same constraints, hence no isolated build environment.
"$VENV/bin/python" -m pip install --quiet --no-input -c "$constraints" hatchling editables </dev/null
"$VENV/bin/python" -m pip install --quiet --no-input -c "$constraints" --no-build-isolation -e ".[$extras]" </dev/null
