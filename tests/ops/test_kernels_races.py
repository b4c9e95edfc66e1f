"""No two threads of a kernel access the same memory, one of them to store, with nothing to order them."""

from __future__ import annotations

from tests.host_shim.build import compiler
from tests.host_shim.tools import skip_without
from tests.ops.every_kernel import check_every_kernel


def test_kernels_have_no_races() -> None:
    if compiler() is None:
        skip_without("there is no g++ to build kernels with")
    check_every_kernel("races")
