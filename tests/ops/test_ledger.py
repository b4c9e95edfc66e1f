"""The ledger of copies: totals; and that gpuscalp.ops copies nowhere else."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

from gpuscalp.ops.ledger import Copies, Ledger

OPS = Path(__file__).resolve().parents[2] / "gpuscalp" / "ops"


def test_copies_are_counted_by_direction() -> None:
    ledger = Ledger()
    for size in (0, 1, 64, 100, 127, 128):
        ledger.record("host_to_device", size)
    ledger.record("device_to_host", 5)
    assert ledger.total("host_to_device") == Copies(6, 420)
    assert ledger.total("device_to_host") == Copies(1, 5)


def test_no_copy_is_lost_between_threads() -> None:
    ledger = Ledger()

    def work() -> None:
        for _ in range(2_000):
            ledger.record("device_to_host", 3)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.total("device_to_host") == Copies(16_000, 48_000)


def copying_calls(text: str) -> list[str]:
    """Return the calls of a source that move an array between the host and a GPU, past ops/copies.py."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value)
        of_cupy = owner in ("cupy", "import_cupy()") and node.attr in (
            "array",
            "asarray",
            "asnumpy",
            "copyto",
        )
        if of_cupy or node.attr in ("memcpy", "memcpyAsync", "copy_from_host_async", "copy_to_host_async"):
            found.append(ast.unparse(node))
    return found


def test_arrays_are_copied_in_one_file_alone() -> None:
    for path in OPS.glob("*.py"):
        assert bool(copying_calls(path.read_text())) == (path.name == "copies.py"), path.name


def test_copying_calls_sees_the_ways_of_cupy() -> None:
    text = "import_cupy().asarray(x)\ncupy.asnumpy(y)\nnp.asarray(z)\nruntime.memcpyAsync(a, b, 1, 2, 3)"
    assert copying_calls(text) == ["import_cupy().asarray", "cupy.asnumpy", "runtime.memcpyAsync"]
