"""Every kernel compiles for every supported GPU, with the options that keep the bits. Needs no GPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpuscalp.errors import DeviceError
from gpuscalp.ops.cuda_module import compile_source
from gpuscalp.ops.kernel_source import load_kernel_source
from tests.host_shim.build import entries_of
from tests.host_shim.tools import skip_without

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
STEMS = sorted(path.stem for path in KERNELS.glob("*.cu"))
# What the host shim is tested with must be CUDA for a GPU's compiler too.
SELFTEST = Path(__file__).resolve().parents[1] / "host_shim" / "selftest.cu"
ARCHS = ("75", "90", "120")

# Loads or stores of registers that did not fit, by entry point, with the reason for each.
ALLOWED_LOCAL_BYTES: dict[tuple[str, str], int] = {}

_FUSED = re.compile(r"\b(?:fma|mad)\.(?:rn|rz|rm|rp)?[.\w]*f(?:32|64)\b")
# Arithmetic that a GPU may approximate or flush, and sums and products that ptxas may still contract.
_INEXACT = re.compile(r"\b\w+\.(?:approx|full)[.\w]*\.f32\b|\.ftz\b")
_OPEN_ROUNDING = re.compile(r"\b(?:add|sub|mul)\.f(?:32|64)\b")
_PROPERTIES = re.compile(
    r"Function properties for (\w+)\s+ptxas\s+\S*\s+(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads"
)


@pytest.fixture(scope="module")
def _nvrtc() -> None:
    """Skip where CuPy or NVRTC is not installed; that the pair can compile at all is checked by use."""
    try:
        compile_source('extern "C" __global__ void nothing() {}', "nothing.cu", arch="90")
    except DeviceError as error:
        skip_without(f"kernels cannot be compiled: {error} (make setup EXTRAS=kernels installs NVRTC)")


@pytest.mark.usefixtures("_nvrtc")
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("stem", STEMS)
def test_kernel_compiles_and_keeps_the_bits(stem: str, arch: str) -> None:
    check_source(load_kernel_source(stem), stem, arch)


@pytest.mark.usefixtures("_nvrtc")
@pytest.mark.parametrize("arch", ARCHS)
def test_selftest_of_the_host_shim_is_cuda(arch: str) -> None:
    check_source(SELFTEST.read_text(), "selftest", arch)


def check_source(source: str, stem: str, arch: str) -> None:
    """Assert that a source compiles, exports what it declares, keeps the bits and stays in registers."""
    made = compile_source(source, f"{stem}.cu", arch=arch)
    assert made.binary.startswith(b"\x7fELF")
    check_ptx(made.ptx)
    entries = {entry.name for entry in entries_of(source)}
    assert set(re.findall(r"\.entry (\w+)\(", made.ptx)) == entries, "an entry point is mangled or missing"
    properties = {name: [int(size) for size in sizes] for name, *sizes in _PROPERTIES.findall(made.log)}
    assert entries <= set(properties), made.log
    for name in entries:
        # An array that is indexed by a variable, or a register that was spilled, lies in slow local memory.
        assert max(properties[name]) <= ALLOWED_LOCAL_BYTES.get((stem, name), 0), made.log


def check_ptx(ptx: str) -> None:
    """Assert that intermediate code rounds after each operation and drops no denormal."""
    for pattern, what in (
        (_FUSED, "fused multiply-add"),
        (_INEXACT, "approximate or flushing instruction"),
        (_OPEN_ROUNDING, "operation that may be contracted"),
    ):
        found = pattern.search(ptx)
        assert found is None, f"{what}: {found[0] if found else ''}"


@pytest.mark.usefixtures("_nvrtc")
@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("x[0] * x[1] + x[2]", True),
        ("sqrtf(x[0]) / x[1]", True),
        ("fminf(x[0], x[1])", True),
        ("fmaf(x[0], x[1], x[2])", False),
        ("__fdividef(x[0], x[1])", False),
        ("__expf(x[0])", False),
        ("(float)fma((double)x[0], (double)x[1], (double)x[2])", False),
    ],
)
def test_check_ptx_tells_exact_arithmetic_from_the_rest(expression: str, allowed: bool) -> None:
    source = f'extern "C" __global__ void probe(float* x) {{ x[3] = {expression}; }}'
    made = compile_source(source, "probe.cu", arch="90")
    if allowed:
        check_ptx(made.ptx)
    else:
        with pytest.raises(AssertionError):
            check_ptx(made.ptx)


def test_stems_are_the_files_of_kernels() -> None:
    assert {path.suffix for path in KERNELS.iterdir() if path.is_file()} <= {".cu", ".md"}
    assert len(STEMS) == len(list(KERNELS.glob("*.cu")))
