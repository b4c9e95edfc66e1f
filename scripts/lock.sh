#!/bin/sh
# Rewrite the constraints files from pyproject.toml: `make constraints`.
#
# One resolution covers Python 3.11 to 3.14 (environment markers where the versions differ) and says nothing
# about where the packages come from. CUDA 12 has a file of its own because the package `cuda-toolkit` can
# have one version only in a resolution, and 12 and 13 ask for different ones; hftbacktest has one because it
# keeps NumPy below the version that everything else gets.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
tool=.cache/lock

[ -x "$tool/bin/uv" ] || { "$python" -m venv "$tool" && "$tool/bin/python" -m pip install --quiet uv; }

lock() {
    out=$1
    shift
    {
        echo "# Written by make constraints; do not edit. Extras: $*"
        # shellcheck disable=SC2046  # one word per extra is what is wanted
        "$tool/bin/uv" pip compile --quiet --universal --upgrade --python-version 3.11 \
            $(printf -- '--extra %s ' "$@") --no-annotate --no-header --no-emit-index-url pyproject.toml
    } > "$out.new"
    mv "$out.new" "$out"
}

lock constraints.txt cpu cuda13 kernels dev conformance notify nautilus ray mlflow
lock constraints-cuda12.txt cuda12 dev conformance notify nautilus ray mlflow
lock constraints-hftbacktest.txt hftbacktest
