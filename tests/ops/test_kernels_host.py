"""Every entry point of ``kernels/*.cu``, executed on the host, gives the bits of its Numba twin.

The tests of a kernel are in ``test_cuda_<stem>.py``: they run it through ``cuda_on_host`` (the launcher
``ops/cuda_<stem>.py`` and the kernel) or through ``HostKernel`` (the kernel alone), compare with
``assert_same_bits`` in several orders of the threads (``seed``), and are marked
``@covers("<stem>", "<entry>", …)``. An entry point without such a test fails here, in
``test_every_entry_point_is_executed``.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.host_shim.build import compiler, entries_of
from tests.host_shim.covers import COVERED, covers
from tests.host_shim.host_kernel import HostKernel
from tests.host_shim.tools import skip_without

ROOT = Path(__file__).resolve().parents[2]

# Their marks fill COVERED, also where this file is run alone.
for _path in sorted(Path(__file__).parent.glob("test_cuda_*.py")):
    importlib.import_module(f"tests.ops.{_path.stem}")


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if compiler() is None:
        skip_without("there is no g++ to build kernels with")


# ---- the table ----------------------------------------------------------------------------------------


def entry_points(folder: Path) -> set[tuple[str, str]]:
    """Return (stem, entry) of every kernel in a folder."""
    return {(path.stem, entry.name) for path in folder.glob("*.cu") for entry in entries_of(path.read_text())}


def uncovered(folder: Path) -> list[str]:
    """Return the entry points that no test executes."""
    return sorted(f"{stem}.cu {entry}" for stem, entry in entry_points(folder) - COVERED.keys())


def test_every_entry_point_is_executed() -> None:
    assert uncovered(ROOT / "kernels") == []


def test_every_kernel_file_has_an_entry_point() -> None:
    empty = [path.name for path in (ROOT / "kernels").glob("*.cu") if not entries_of(path.read_text())]
    assert empty == []


def test_covered_names_entry_points_that_exist() -> None:
    assert COVERED.keys() <= entry_points(ROOT / "kernels")


def test_uncovered_names_a_kernel_without_a_test(tmp_path: Path) -> None:
    (tmp_path / "novel.cu").write_text('extern "C" __global__ void fold(int* x) { x[0] = 0; }')
    assert uncovered(tmp_path) == ["novel.cu fold"]


def test_covers_fails_a_test_that_does_not_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.host_shim.covers.COVERED", {})

    @covers("probe", "touch")
    def idle() -> None:
        pass

    @covers("probe", "touch")
    def busy() -> None:
        source = 'extern "C" __global__ void touch() {}'
        HostKernel("probe", source=source).launch("touch", (1,), (1,), ())

    busy()
    with pytest.raises(AssertionError, match="never launched: touch"):
        idle()


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").glob("*.cu")), ids=lambda path: path.stem)
def test_kernel_table_of_the_readme_is_complete(path: Path) -> None:
    readme = (ROOT / "kernels" / "README.md").read_text()
    for name in (path.name, *(entry.name for entry in entries_of(path.read_text()))):
        assert f"`{name}`" in readme, f"kernels/README.md does not list {name}"
