"""All kernels on small inputs: one run for what watches them, beside the many of ``test_cuda_*.py``."""

from __future__ import annotations

from unittest import mock

import numpy as np

from gpuscalp.ops import cuda_ladder
from tests.host_shim.build import Watch
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.ladder_threads import ladder_threads
from tests.ops.test_cuda_context import check_context, check_transpose
from tests.ops.test_cuda_forest import DEPTHS, check
from tests.ops.test_cuda_formulas import check_formulas
from tests.ops.test_cuda_frames import check_fold
from tests.ops.test_cuda_ladder import check_batch, check_step, program_of, unused_families
from tests.ops.test_cuda_row_digest import check_digest


def check_every_kernel(watch: Watch) -> None:
    """Compare each kernel with its twin; each of its loops goes round more than once."""
    rng = np.random.default_rng(1)
    with (
        cuda_on_host(watch=watch, seed=1),
        ladder_threads(8),
        mock.patch.object(cuda_ladder, "STEP_THREADS", 32),
    ):
        check_fold(rng, 3, 40, 3.0)
        # With ticks: the threads of an idle symbol's block load its state, which but one of them uses, while
        # that one may have stored it.
        check_fold(rng, 2, 1, 60.0)
        check_context(rng, 33, 40)
        check_context(rng, 33, 1)
        check_transpose(rng, 33, 7)
        check_formulas(rng, 3, 70)
        check_digest(rng, 9, 131, 2)
        check_digest(rng, 9, 0, 2)
        for rows in (1, 33):
            check(rng, DEPTHS["every depth"], rows)
        check(rng, DEPTHS["many trees"], 33)
        for program in (program_of(), unused_families()):
            check_step(rng, program, 3, 12)
            check_batch(rng, program, 70, tile=64, cuts=[(0, 70)])
