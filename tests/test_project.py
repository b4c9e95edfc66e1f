"""What holds for the project as a whole: its text, its sizes, its dependencies, its wheel."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gpuscalp import __version__
from gpuscalp.config import (
    BacktestConfig,
    LiveConfig,
    TrainConfig,
    TriedConfig,
    TuneConfig,
    WalkForwardConfig,
    load,
)
from tests.conftest import LONG_FILES
from tests.statements import statements

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FOLDERS = ("gpuscalp", "benchmarks", "scripts", "tests")
TEXT_FOLDERS = (*SOURCE_FOLDERS, "kernels", "configs", "docs", ".ci")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

LINES_MAX = 400
FUNCTION_LINES_MAX = 80

# Written in pieces, so that this file does not find itself.
LEFT_OVER = {
    "a package registry's host": r"py" + r"pi\.org|python" + r"hosted|registry\.npm" + r"js|index-url\s*=",
    "a path of one machine": r"/(work|root|home)/" + r"\w",
    "unfinished work": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|NotImplemented" + r"Error",
}


def _python_files() -> list[Path]:
    return sorted(path for folder in SOURCE_FOLDERS for path in (ROOT / folder).rglob("*.py"))


def _text_files() -> Iterator[Path]:
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and path.name not in ("LICENSE", ".coverage", ".git"):
            yield path
    for folder in TEXT_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_left_over_words_in_any_text_file():
    found = []
    for path in _text_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for what, pattern in LEFT_OVER.items():
            for match in re.finditer(pattern, text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{_name(path)}:{line}: {what}: {match.group()}")
    assert not found, "\n".join(found)


def test_modules_stay_small():
    sizes = {_name(path): len(path.read_text().splitlines()) for path in _python_files()}
    too_long = {name: size for name, size in sizes.items() if size > LINES_MAX}
    assert not too_long, f"more than {LINES_MAX} lines: {too_long}"


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Return the lines of a function's body that hold code: neither docstring, nor comment, nor blank."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body:
        return 0
    text = lines[body[0].lineno - 1 : node.end_lineno]
    return sum(1 for line in text if line.strip() and not line.strip().startswith("#"))


def test_files_that_a_run_of_the_tests_begins_with_are_there():
    assert [name for name in LONG_FILES if not (ROOT / "tests" / name).is_file()] == []


def test_functions_stay_small():
    too_long = []
    for path in _python_files():
        text = path.read_text()
        lines = text.splitlines()
        for node in statements(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = _code_lines(node, lines)
                if size > FUNCTION_LINES_MAX:
                    too_long.append(f"{_name(path)}:{node.lineno} {node.name}: {size} lines of code")
    assert not too_long, "\n".join(too_long)


def test_every_module_of_the_package_has_a_docstring():
    missing = [
        _name(path)
        for path in sorted((ROOT / "gpuscalp").rglob("*.py"))
        if path.stat().st_size and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not missing, f"no module docstring: {missing}"


# Dependencies -----------------------------------------------------------------------------------------------


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _pins(file: str) -> list[Requirement]:
    lines = (ROOT / file).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _environment(python: str) -> dict[str, str]:
    return {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }


def _pinned(file: str, python: str) -> dict[str, str]:
    """Return the version of every package that a constraints file fixes for one Python on Linux x86-64."""
    pinned: dict[str, str] = {}
    for pin in _pins(file):
        if pin.marker is not None and not pin.marker.evaluate(_environment(python)):
            continue
        (specifier,) = pin.specifier
        assert specifier.operator == "==", f"{file}: {pin} fixes no version"
        name = canonicalize_name(pin.name)
        assert name not in pinned, f"{file}: {name} has two versions on Python {python}"
        pinned[name] = specifier.version
    return pinned


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("constraints.txt", ["cpu", "dev", "kernels"]),
        ("constraints.txt", ["cuda13", "dev"]),
        ("constraints.txt", ["notify", "nautilus", "ray", "mlflow"]),
        ("constraints-cuda12.txt", ["cuda12", "dev"]),
        ("constraints-hftbacktest.txt", ["hftbacktest"]),
    ],
)
def test_constraints_fix_every_declared_dependency(file, extras, python):
    project = _pyproject()["project"]
    declared = [*project["dependencies"], *(d for e in extras for d in project["optional-dependencies"][e])]
    pinned = _pinned(file, python)
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate(_environment(python)):
            continue
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{file} does not fix {name} on Python {python}"
        assert requirement.specifier.contains(pinned[name]), (
            f"{file}: {name}=={pinned[name]} not {requirement}"
        )


def _required(extras: set[str]) -> set[str]:
    """Return the names of everything that gpuscalp with these extras needs here, directly or not."""
    seen: set[tuple[str, str]] = set()
    wanted = [("gpuscalp", extra) for extra in ("", *extras)]
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted += [(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)]
    return {name for name, _ in seen} - {"gpuscalp"}


def test_environment_holds_exactly_the_fixed_versions():
    build = Path(sys.prefix) / "gpuscalp-build"
    if not build.is_file():
        pytest.skip("this environment was not made by make setup")
    device = build.read_text().split()[0]
    file = "constraints-cuda12.txt" if device == "cuda12" else "constraints.txt"
    pinned = _pinned(file, f"{sys.version_info.major}.{sys.version_info.minor}")
    extras = {device, "dev"} | ({"kernels"} if device == "cpu" else set())
    installed = {name: importlib.metadata.version(name) for name in _required(extras)}
    assert {name: pinned.get(name) for name in installed} == installed


def test_exactly_one_build_of_xgboost_and_at_most_one_of_cupy_is_installed():
    names = {canonicalize_name(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    assert len(names & {"xgboost", "xgboost-cpu", "xgboost-cu12"}) == 1
    assert len(names & {"cupy-cuda12x", "cupy-cuda13x"}) <= 1


# Configuration ----------------------------------------------------------------------------------------------

CONFIGS = {
    "backtest": BacktestConfig,
    "embedded": LiveConfig,
    "nautilus": LiveConfig,
    "paper": LiveConfig,
    "train": TrainConfig,
    "tune": TuneConfig,
    "walkforward": WalkForwardConfig,
}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configuration_decodes(path):
    load(CONFIGS[path.stem], path)


def test_shipped_backtest_configuration_is_the_default_written_out():
    assert load(BacktestConfig, ROOT / "configs" / "backtest.toml") == BacktestConfig()


def test_shipped_tuning_configuration_is_the_default_written_out():
    assert load(TuneConfig, ROOT / "configs" / "tune.toml") == TuneConfig()


def test_shipped_walk_forward_configuration_has_the_defaults_apart_from_what_it_tries():
    found = load(WalkForwardConfig, ROOT / "configs" / "walkforward.toml")
    assert found.tried.min_edge_bps
    assert msgspec.structs.replace(found, tried=TriedConfig()) == WalkForwardConfig()


# Version and wheel ------------------------------------------------------------------------------------------


def test_version_is_the_same_everywhere():
    assert importlib.metadata.version("gpuscalp") == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_wheel_holds_the_package_and_every_kernel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kernels = {f"gpuscalp/_kernels/{path.name}" for path in (ROOT / "kernels").glob("*.cu")}
    modules = {_name(path) for path in (ROOT / "gpuscalp").rglob("*.py")}
    assert {"gpuscalp/py.typed", *kernels, *modules} <= names
    assert not {name for name in names if name.startswith(("tests/", "kernels/", "benchmarks/"))}


def test_wheel_works_outside_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    # -S -E: nothing of this checkout, in particular not its .pth file, is on the path.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import gpuscalp;"
        "print(gpuscalp.__version__, Path(gpuscalp.__file__).parent.parent == Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code, str(tmp_path / "site")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.split() == [__version__, "True"]
