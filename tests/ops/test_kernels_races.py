"""No two threads of a kernel access the same memory, one of them to store, with nothing to order them."""

from __future__ import annotations

from tests.host_shim.build import compiler
from tests.host_shim.host_kernel import LAUNCHES
from tests.host_shim.tools import skip_without
from tests.ops.every_kernel import check_every_kernel
from tests.ops.test_kernels_host import ROOT, entry_points


def test_kernels_have_no_races() -> None:
    if compiler() is None:
        skip_without("there is no g++ to build kernels with")
    before = LAUNCHES.copy()
    check_every_kernel("races")
    assert {entry for entry in entry_points(ROOT / "kernels") if LAUNCHES[entry] == before[entry]} == set()
