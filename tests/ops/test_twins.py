"""The two twins of an op have the same names and arguments, so that a caller swaps one module for another.

Read from the sources: importing a CUDA twin must not be needed, and must not need CuPy either.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gpuscalp"
OPS = PACKAGE / "ops"
# cuda_module compiles for all twins and is none itself.
TWINS = sorted(
    path.stem.removeprefix("cuda_") for path in OPS.glob("cuda_*.py") if path.stem != "cuda_module"
)

# (stem, function) -> why only one of the twins has it
ONE_SIDED: dict[tuple[str, str], str] = {
    ("ladder", "step_frames"): "the CPU computes a row of any length; benchmarks count with it",
}

Signature = tuple[tuple[str, str, str | None], ...]


def public_functions(text: str) -> dict[str, Signature]:
    """Return name, kind and default of every argument of every public function at the top of a module."""
    return {
        node.name: _signature(node.args)
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    }


def _signature(args: ast.arguments) -> Signature:
    positional = [(arg.arg, "positional only") for arg in args.posonlyargs]
    positional += [(arg.arg, "positional") for arg in args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    parameters = [(*named, _text(default)) for named, default in zip(positional, defaults, strict=True)]
    if args.vararg:
        parameters.append((args.vararg.arg, "*", None))
    parameters += [
        (arg.arg, "keyword only", _text(default))
        for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
    ]
    if args.kwarg:
        parameters.append((args.kwarg.arg, "**", None))
    return tuple(parameters)


def _text(default: ast.expr | None) -> str | None:
    return None if default is None else ast.unparse(default)


def differences(cpu_text: str, cuda_text: str) -> dict[str, str]:
    """Return what differs between two twins, by function."""
    cpu, cuda = public_functions(cpu_text), public_functions(cuda_text)
    found = dict.fromkeys(cpu.keys() - cuda.keys(), "only on the CPU")
    found |= dict.fromkeys(cuda.keys() - cpu.keys(), "only on CUDA")
    found |= {
        name: f"CPU {cpu[name]}, CUDA {cuda[name]}"
        for name in cpu.keys() & cuda.keys()
        if cpu[name] != cuda[name]
    }
    return found


@pytest.mark.parametrize("stem", TWINS)
def test_twins_have_the_same_functions(stem: str) -> None:
    cpu = OPS / f"{stem}.py"
    assert cpu.is_file(), f"ops/cuda_{stem}.py has no twin ops/{stem}.py"
    found = differences(cpu.read_text(), (OPS / f"cuda_{stem}.py").read_text())
    unexplained = {name: what for name, what in found.items() if (stem, name) not in ONE_SIDED}
    assert unexplained == {}


@pytest.mark.parametrize("stem", TWINS)
def test_twin_has_a_kernel_of_its_name(stem: str) -> None:
    assert (ROOT / "kernels" / f"{stem}.cu").is_file()


@pytest.mark.parametrize("stem", sorted(path.stem for path in (ROOT / "kernels").glob("*.cu")))
def test_kernel_has_both_twins(stem: str) -> None:
    assert (OPS / f"{stem}.py").is_file()
    assert stem in TWINS


def test_one_sided_names_functions_that_exist() -> None:
    for stem, name in ONE_SIDED:
        found = differences((OPS / f"{stem}.py").read_text(), (OPS / f"cuda_{stem}.py").read_text())
        assert name in found, f"{stem}.{name} needs no exception any more"


def test_cupy_is_never_imported_with_a_module() -> None:
    """An import at the top would make the CPU path depend on CuPy and take 0.7 s."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [name for name in names if name.partition(".")[0] in {"cupy", "cupyx"}], path


def test_no_kernel_is_compiled_by_cupy_itself() -> None:
    """CuPy's own compilation flushes denormals whatever options it is given; see ops/cuda_module.py."""
    compilers = {"RawModule", "RawKernel", "ElementwiseKernel", "ReductionKernel", "fuse"}
    for path in PACKAGE.rglob("*.py"):
        used = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert not used & compilers, path


def test_differences_sees_names_order_kinds_and_defaults() -> None:
    cpu = "def a(x, y=1, *, out): ...\ndef b(x): ...\ndef _private(): ...\ndef d(): ..."
    assert differences(cpu, cpu) == {}
    assert set(differences(cpu, "def a(x, y=2, *, out): ...\ndef b(y): ...\ndef c(): ...")) == set("abcd")
    assert differences("def a(x, y): ...", "def a(y, x): ...")
    assert differences("def a(x, *, y): ...", "def a(x, y): ...")
    assert differences("def a(x): ...", "def a(x, /): ...")
    assert not differences("def a(x: int): ...", "def a(x: float): ...")
