"""The layers of docs/architecture.md, read from the code's own imports.

A file imports from its own layer or a lower one, never from a higher one, and never in a circle. Imports
inside functions count as well: lateness is for speed, not for a way round the layers.
"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

from gpuscalp import object_graph
from tests.statements import statements

PACKAGE = Path(__file__).resolve().parent.parent / "gpuscalp"

# The first name below `gpuscalp` decides. A new file has to be put in here.
LAYERS: dict[int, frozenset[str]] = {
    0: frozenset(
        {"errors", "redaction", "schema", "config", "progress", "terminal", "times", "user", "zstd"}
    ),
    1: frozenset({"device", "device_profile", "ops"}),
    2: frozenset(
        {
            "account",
            "batcher",
            "contract",
            "drift",
            "ensemble",
            "feature_additions",
            "feature_columns",
            "feature_formulas",
            "feature_names",
            "features",
            "frames",
            "labels",
            "latency",
            "open_orders",
            "order_policy",
            "orders",
            "overfitting",
            "risk",
            "rolling",
            "score",
            "splits",
            "stats",
            "strategy",
            "succession",
        }
    ),
    3: frozenset({"cuda_inference", "inference", "pipeline", "trader"}),
    4: frozenset(
        {
            "archive",
            "arrow",
            "booster_form",
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
            "lifeline",
            "locks",
            "logs",
            "monitoring",
            "object_graph",
            "process_pool",
            "ray_cluster",
            "registry",
            "run_folder",
            "stop_signals",
            "tracking",
            "ubjson",
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
            "feature_plot",
            "feature_table",
            "leakage",
            "live",
            "nautilus",
            "parity",
            "record",
            "rehearsal",
            "report",
            "research",
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
    0: NUMPY | {"backports", "compression"},
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


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def _imports(path: Path, *, top_level_only: bool = False) -> frozenset[str]:
    """Return the full names of the modules that a file imports."""
    tree = _tree(path)
    found: set[str] = set()
    for node in tree.body if top_level_only else statements(tree):
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
    return frozenset(found)


def test_file_imports_only_from_its_own_and_lower_layers():
    wrong = []
    for path in FILES:
        module = _module_name(path)
        layer = _layer(module)
        wrong += [
            f"{module} (layer {layer}) imports {name} (layer {_layer(name)})"
            for name in sorted(_imports(path))
            if name.split(".")[0] == "gpuscalp" and _layer(name) > layer
        ]
    assert wrong == []


def test_file_imports_only_the_libraries_of_its_layer():
    wrong = []
    for path in FILES:
        module = _module_name(path)
        layer = _layer(module)
        for top in sorted({name.split(".")[0] for name in _imports(path)} - {"gpuscalp"}):
            if top in sys.stdlib_module_names:
                if layer in (2, 3) and top in IMPURE:
                    wrong.append(f"{module} (layer {layer}) is pure; it imports {top}")
            elif layer in FOREIGN and top not in FOREIGN[layer]:
                wrong.append(f"{module} (layer {layer}) imports {top}")
    assert wrong == []


def test_only_the_array_layer_knows_the_gpu():
    wrong = []
    for path in FILES:
        known = {name.split(".")[0] for name in _imports(path)} & {"cupy", "cupyx", "numba"}
        # Training hands CuPy arrays to XGBoost; nobody else above the arrays touches either library.
        if known and _layer(_module_name(path)) != 1 and path.relative_to(PACKAGE).parts[0] != "train":
            wrong.append(f"{_module_name(path)} imports {sorted(known)}")
    assert wrong == []


def test_cuda_is_imported_lazily():
    """A machine without CuPy must start."""
    wrong = []
    for path in FILES:
        tops = {name.split(".")[0] for name in _imports(path, top_level_only=True)}
        if tops & {"cupy", "cupyx"}:
            wrong.append(f"{_module_name(path)} imports CuPy at its top")
    assert wrong == []


def test_pyarrow_comes_by_way_of_one_file():
    """Where a file imports it by itself, a Ctrl-C at its first conversion is lost (gpuscalp.arrow)."""
    wrong = []
    for path in FILES:
        known = {name.split(".")[0] for name in _imports(path)} & {"pyarrow"}
        if known and _module_name(path) != "gpuscalp.arrow":
            wrong.append(f"{_module_name(path)} imports pyarrow by itself")
    assert wrong == []


def test_what_a_checkpoint_may_name_is_what_a_session_s_state_is_made_of():
    """A module that is left out is a checkpoint that cannot be written; one that can do something with files
    or processes is a class that somebody else's checkpoint may make."""
    paths = {_module_name(path): path for path in FILES}
    reached: set[str] = set()
    left = ["gpuscalp.live.market", "gpuscalp.live.roles", "gpuscalp.trader"]
    while left:
        module = left.pop()
        if module in paths and module not in reached:
            reached.add(module)
            left += _imports(paths[module], top_level_only=True)
    classes = {
        module
        for module in reached
        if any(isinstance(node, ast.ClassDef) for node in _tree(paths[module]).body)
    }
    # Their classes are raised, or configure something else, or do not outlive a call.
    passing = {
        *("errors", "redaction", "ops._numba", "journal.blocks", "feeds.binance_forms", "feeds.connection"),
        *(f"config.{name}" for name in ("training", "tuning", "walkforward")),
    }
    assert classes - {f"gpuscalp.{name}" for name in passing} == object_graph.MODULES
    tops = {name.split(".")[0] for module in object_graph.MODULES for name in _imports(paths[module])}
    assert tops & IMPURE == set()


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
