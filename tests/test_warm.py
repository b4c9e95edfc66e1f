"""Compiling ahead: which kernels, for what, and that a later start finds them."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuscalp import warm
from gpuscalp.errors import DeviceError, UsageError
from gpuscalp.ops.cuda_module import compile_source
from gpuscalp.ops.kernel_source import load_kernel_source
from tests.compiled_ahead import answer_of_run, compile_into
from tests.thorough import THOROUGH

ROOT = Path(__file__).resolve().parent.parent
STEMS = sorted(path.stem for path in (ROOT / "kernels").glob("*.cu"))

needs_nvrtc = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kernels"
    monkeypatch.setenv("GPUSCALP_KERNEL_CACHE", str(path))
    return path


def no_progress(done: float, total: float | None = None, note: str = "") -> None:
    pass


@needs_nvrtc
def test_named_architectures_are_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stems = ["forest", "row_digest"]
    monkeypatch.setattr(warm, "kernel_stems", lambda: stems)  # all of them: of this machine, below
    told: list[tuple[float, float | None]] = []
    answer = warm.compile_all(
        ["75", "90", "75"], told=lambda done, total=None, note="": told.append((done, total))
    )
    assert answer["folder"] == folder
    assert answer["cpu"] is None
    assert [(row["arch"], row["kernel"]) for row in answer["kernels"]] == [
        (arch, stem) for arch in ("75", "90") for stem in stems
    ]
    assert not any(row["cached"] for row in answer["kernels"])
    assert told == [(count, 2 * len(stems)) for count in range(2 * len(stems) + 1)]
    again = warm.compile_all(["90"], told=no_progress)
    assert all(row["cached"] for row in again["kernels"])
    assert len(list(folder.iterdir())) == 2 * len(stems)


@needs_nvrtc
def test_figures_are_those_of_the_compiler(folder: Path) -> None:
    row = warm.compile_cuda("forest", "90")
    made = compile_source(load_kernel_source("forest"), "forest.cu", arch="90")
    assert row.bytes == len(made.binary)
    assert row.registers == max(int(word.split()[1]) for word in re.findall(r"Used \d+", made.log))
    assert row.spill_bytes == 0
    assert not row.cached
    assert row.kept
    kept = warm.compile_cuda("forest", "90")
    assert kept.cached
    assert kept.kept
    assert (kept.bytes, kept.registers, kept.spill_bytes) == (row.bytes, row.registers, row.spill_bytes)


@needs_nvrtc
def test_what_could_not_be_written_is_not_said_to_be_kept(folder: Path) -> None:
    folder.write_text("not a folder")
    row = warm.compile_cuda("forest", "90")
    assert (row.cached, row.kept) == (False, False)
    assert row.bytes > 0


@needs_nvrtc
def test_spilled_registers_are_counted_over_all_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "".join(
        f"ptxas . 0 bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads\n"
        f"ptxas info : Used {used} registers\n"
        for stores, loads, used in ((0, 0, 40), (16, 8, 255), (4, 4, 32))
    )
    made = compile_source('extern "C" __global__ void f() {}', "f.cu", arch="90")
    monkeypatch.setattr(warm, "compile_kernel", lambda *_, **__: type(made)(made.binary, made.ptx, log))
    row = warm.compile_cuda("forest", "90")
    assert (row.registers, row.spill_bytes) == (255, 32)


@needs_nvrtc
def test_ptx_has_neither_registers_nor_spills() -> None:
    row = warm.compile_cuda("forest", "120", binary=False)
    assert (row.registers, row.spill_bytes) == (None, None)
    assert row.bytes > 0


@needs_nvrtc
@pytest.mark.parametrize("arch", ["91", "9.0", "sm_90", ""])
def test_unknown_architecture_is_refused_before_anything_is_compiled(arch: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="does not compile for this architecture") as caught:
        warm.compile_all(["75", arch], told=no_progress)
    assert caught.value.value == arch
    assert "90" in (caught.value.fix or "")
    assert not folder.exists()


def test_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match="CuPy is not installed"):
        warm.compile_all(["90"], told=no_progress)


@needs_nvrtc
@pytest.mark.parametrize(
    ("capability", "kinds"), [("8.6", {"sm_86"}), ("999.0", {"compute_121"}), (None, set())]
)
def test_this_machine_gets_its_gpu_and_its_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capability: str | None, kinds: set[str]
) -> None:
    cuda: dict[str, Any] = {"usable": capability is not None, "compute_capability": capability}
    monkeypatch.setattr(warm, "describe", lambda: {"cuda": cuda})
    monkeypatch.setattr(warm, "compile_cpu", lambda: {"folder": "numba", "seconds": 1.0})
    answer = warm.compile_all(told=no_progress)
    assert answer["cpu"] == {"folder": "numba", "seconds": 1.0}
    assert len(answer["kernels"]) == len(kinds) * len(STEMS)
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    assert {name.split("-")[1] for name in names} == kinds


@needs_nvrtc
def test_cache_is_described_and_cleared(folder: Path) -> None:
    assert warm.describe_cache(clear=True) == {"folder": folder, "bytes": 0, "entries": [], "cleared": 0}
    warm.compile_cuda("forest", "90")
    warm.compile_cuda("frames", "90")
    damaged = next(folder.glob("frames-*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = warm.describe_cache(clear=True)
    assert [(row["kernel"], row["target"], row["whole"]) for row in found["entries"]] == [
        ("forest", "sm_90", True),
        ("frames", "sm_90", False),
    ]
    assert found["bytes"] == sum(row["bytes"] for row in found["entries"]) > 0
    assert found["cleared"] == 2
    assert list(folder.iterdir()) == []


def test_launchers_ask_for_sources_without_constants_of_their_own() -> None:
    # What is compiled ahead is each source as it stands: with other constants it would be cold.
    asked = set()
    for path in (ROOT / "gpuscalp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "load_module":
                assert len(node.args) == 1, f"{path.name}:{node.lineno}"
                assert not node.keywords, f"{path.name}:{node.lineno}"
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
                asked.add(node.args[0].value)
    assert asked <= set(STEMS)
    assert asked


@pytest.mark.parametrize("there", [True, False])
def test_start_compiles_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    done: list[str] = []
    mark = tmp_path / "mark"
    if there:
        mark.touch()
    monkeypatch.setattr("gpuscalp.ops._numba.compiled_mark", lambda: mark)
    monkeypatch.setattr(warm, "compile_cpu", lambda: done.append("compiled"))
    warm.compile_missing(told=lambda done_, total=None, note="": done.append(note))
    assert done == (
        [] if there else ["compiling kernels for this processor, once: up to a minute", "compiled"]
    )


@pytest.mark.slow
def test_cpu_kernels_of_a_session_are_compiled_into_an_empty_folder(tmp_path: Path) -> None:
    """A run of all tests has begun with that, unless the kernels were there."""
    answer = answer_of_run()
    if answer is None and not THOROUGH:
        pytest.skip("the kernels are compiled; continuous integration begins without them")
    before, after = answer or compile_into(tmp_path)
    assert not before
    assert after


_COVERED = """
import sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from gpuscalp.live.replay import run_replay
from gpuscalp.warm import use_kernels
from tests.live import script

def compiled():
    ours = [vars(module) for name, module in sys.modules.items() if name.startswith("gpuscalp.")]
    kernels = {each for names in ours for each in names.values() if isinstance(each, Dispatcher)}
    return {f"{each.py_func.__name__}{types}" for each in kernels for types in each.overloads}

folder = Path(sys.argv[1])
use_kernels(folder / "ahead")
before = compiled()
status = run_replay(
    [script.write_recording(folder / "market.txt", seconds=15)],
    folder / "session",
    model=script.write_model(
        folder / "model", reference=script.guarded, add=("my.queue = queue_imbalance.last * 2",)
    ),
    config=script.trading_config(),
    exchange_info=script.write_exchange_info(folder / "info.json"),
)
print(status["frames"], len(before), *(compiled() - before), sep="\\n")
"""


@pytest.mark.slow
def test_session_compiles_nothing_that_was_not_compiled_ahead(tmp_path: Path) -> None:
    """The outlier guard of a trained model was left out. The model has a formula too."""
    done = subprocess.run(
        [sys.executable, "-c", _COVERED, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    frames, count, *more = done.stdout.splitlines()
    assert int(frames) > 50
    assert int(count) > 20
    assert more == []
