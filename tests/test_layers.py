"""The layers of docs/architecture.md, read from the code's own imports.

A file imports from its own layer or a lower one, never from a higher one, and never in a circle. Imports
inside functions count as well: lateness is for speed, not for a way round the layers.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gpuscalp"

# The first name below `gpuscalp` decides. A new file has to be put in here.
LAYERS: dict[int, frozenset[str]] = {
    0: frozenset({"errors", "redaction", "schema", "config", "progress", "times", "user"}),
    1: frozenset({"device", "device_profile", "ops"}),
    2: frozenset(
        {
            "account",
            "adversarial",
            "batcher",
            "breakers",
            "calibration_band",
            "contest",
            "contract",
            "drift",
            "drift_alarm",
            "ensemble",
            "exposure",
            "feature_columns",
            "features",
            "forest",
            "frames",
            "guard",
            "inquiry",
            "labels",
            "latency",
            "open_orders",
            "order_policy",
            "orders",
            "outcomes",
            "overfitting",
            "promotion",
            "recalibration",
            "reference",
            "risk",
            "risk_rules",
            "rolling",
            "score",
            "sizing",
            "splits",
            "stats",
            "strategy",
            "volatility",
        }
    ),
    3: frozenset({"cuda_inference", "inference", "pipeline", "trader"}),
    4: frozenset(
        {
            "archive",
            "boosters",
            "bundle",
            "bundle_files",
            "files",
            "device_choice",
            "execution",
            "exchange",
            "feeds",
            "forest_reader",
            "journal",
            "logs",
            "monitoring",
            "object_graph",
            "ray_cluster",
            "registry",
            "run_folder",
            "tracking",
            "worker",
            "xgb",
        }
    ),
    5: frozenset(
        {
            "backtest",
            "bench",
            "crash",
            "dashboard",
            "demo",
            "distributed",
            "doctor",
            "drift_report",
            "excerpt",
            "feature_list",
            "feature_plot",
            "feature_table",
            "leakage",
            "live",
            "nautilus",
            "parity",
            "rehearsal",
            "report",
            "retrain",
            "synthetic",
            "train",
            "tuning",
            "walkforward",
            "warm",
        }
    ),
    6: frozenset({"cli", "__main__"}),
}

# What each layer may import from outside. Above layer 3 everything that pyproject.toml declares is allowed.
NUMPY = frozenset({"numpy", "msgspec"})
FOREIGN: dict[int, frozenset[str]] = {
    0: NUMPY,
    1: NUMPY | {"numba", "llvmlite", "cupy", "cupyx"},
    2: NUMPY,
    3: NUMPY,
}

# Layers 2 and 3 are pure: time, randomness, files and sockets come in as arguments, or not at all.
IMPURE = frozenset(
    {
        "asyncio",
        "datetime",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "shutil",
        "socket",
        "sqlite3",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
    }
)


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for path in PACKAGE.rglob("*.py"))
MODULES = {_module_name(path) for path in FILES}


def _layer(module: str) -> int:
    """Return the layer of a module of ours; the bare package (its version) is at the bottom."""
    if module == "gpuscalp":
        return 0
    stem = module.split(".")[1]
    for layer, names in LAYERS.items():
        if stem in names:
            return layer
    raise LookupError(f"{module} has no layer: add it to LAYERS in tests/test_layers.py")


def _imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Return the full names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = _module_name(path).split(".")
                keep = len(package) - node.level + (path.name == "__init__.py")
                base = ".".join([*package[:keep], *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in MODULES else base)
    return found


@pytest.mark.parametrize("path", FILES, ids=_module_name)
def test_file_imports_only_from_its_own_and_lower_layers(path):
    module = _module_name(path)
    layer = _layer(module)
    for name in sorted(_imports(path)):
        if name.split(".")[0] == "gpuscalp":
            assert _layer(name) <= layer, f"{module} (layer {layer}) imports {name} (layer {_layer(name)})"


@pytest.mark.parametrize("path", FILES, ids=_module_name)
def test_file_imports_only_the_libraries_of_its_layer(path):
    module = _module_name(path)
    layer = _layer(module)
    for name in sorted(_imports(path)):
        top = name.split(".")[0]
        if top == "gpuscalp":
            continue
        if top in sys.stdlib_module_names:
            assert not (layer in (2, 3) and top in IMPURE), (
                f"{module} (layer {layer}) is pure; it imports {name}"
            )
        else:
            allowed = FOREIGN.get(layer)
            assert allowed is None or top in allowed, f"{module} (layer {layer}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=_module_name)
def test_only_the_array_layer_knows_the_gpu(path):
    layer = _layer(_module_name(path))
    known = {name.split(".")[0] for name in _imports(path)} & {"cupy", "cupyx", "numba"}
    # Training hands CuPy arrays to XGBoost; nobody else above the arrays touches either library.
    if layer != 1 and path.relative_to(PACKAGE).parts[0] != "train":
        assert not known, f"{path.name} imports {sorted(known)}"


@pytest.mark.parametrize("path", FILES, ids=_module_name)
def test_cuda_is_imported_lazily(path):
    tops = {name.split(".")[0] for name in _imports(path, top_level_only=True)}
    assert not tops & {"cupy", "cupyx"}, (
        f"{path.name} imports CuPy at its top: a machine without it must start"
    )


def test_imports_at_the_top_of_files_make_no_circle():
    graph = {
        _module_name(path): {name for name in _imports(path, top_level_only=True) if name in MODULES}
        for path in FILES
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            pytest.fail("circle: " + " → ".join([*trail[trail.index(module) :], module]))
        if module in done:
            return
        for name in graph[module]:
            visit(name, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())
