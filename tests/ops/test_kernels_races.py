"""All kernels together, on the host: none is left out, and none has a race."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host_shim.build import compiler, entries_of
from tests.host_shim.host_kernel import LAUNCHES
from tests.host_shim.tools import skip_without
from tests.ops.every_kernel import check_every_kernel

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
ENTRIES = {path.stem: [each.name for each in entries_of(path.read_text())] for path in KERNELS.glob("*.cu")}


def test_every_kernel_equals_its_twin_and_has_no_races() -> None:
    """Two accesses to the same memory, one of them to store, with nothing to order them are a race."""
    if compiler() is None:
        skip_without("there is no g++ to build kernels with")
    before = LAUNCHES.copy()
    check_every_kernel("races")
    every = {(stem, entry) for stem, entries in ENTRIES.items() for entry in entries}
    assert {entry for entry in every if LAUNCHES[entry] == before[entry]} == set(), "nobody tests them"


@pytest.mark.parametrize("stem", ENTRIES)
def test_kernel_table_of_the_readme_is_complete(stem: str) -> None:
    readme = (KERNELS / "README.md").read_text()
    assert ENTRIES[stem], "a file without an entry point"
    for name in (f"{stem}.cu", *ENTRIES[stem]):
        assert f"`{name}`" in readme, f"kernels/README.md does not list {name}"
