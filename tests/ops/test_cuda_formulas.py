"""``kernels/formulas.cu`` against its Numba twin, bit for bit: on the host, and on a GPU if asked."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.errors import ShapeError
from gpuscalp.feature_formulas import FormulaBuilder
from gpuscalp.ops import cuda_formulas, formulas
from gpuscalp.ops.formula_program import STACK, Code
from gpuscalp.ops.kernel_source import load_kernel_source
from tests.host_shim.build import compiler
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.ops.device_case import assert_twins, up, up_tuple
from tests.ops.test_cuda_frames import enum_of
from tests.ops.test_formulas import NAMES, awkward

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

# Every instruction, and one formula that fills the stack.
TEXTS = (
    "a.x / (b.last - c_d.mean.8) + 0.25",
    "min(a.x, b.last) * max(c_d.mean.8, -a.x)",
    "sqrt(abs(e.macd.8_32) - 1e-3)",
    "(a.x+" * (STACK - 1) + "b.last" + ")" * (STACK - 1),
)
SIZES = ((1, 1), (33, 1), (300, 1), (2, 33), (5, 257))


def check_formulas(rng, symbol_count, frame_count, texts=TEXTS):
    builder = FormulaBuilder(NAMES)
    for at, text in enumerate(texts):
        builder.add(len(NAMES) + at, text)
    program = builder.program()
    features = awkward(rng, (symbol_count, len(NAMES) + len(texts), frame_count))
    (cuda_features,) = up([features])
    cuda_formulas.formulas(up_tuple(program), cuda_features)
    formulas.formulas(program, features)
    assert_twins([cuda_features], [features], ["features"])


@needs_compiler
@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_formulas_give_the_bits_of_the_cpu(rng, size, seed):
    with cuda_on_host(seed=seed):
        check_formulas(rng, *size)


@needs_compiler
@pytest.mark.parametrize("threads", [1, 7, 64])
def test_formulas_do_not_depend_on_the_block(rng, threads, monkeypatch):
    monkeypatch.setattr(cuda_formulas, "THREADS", threads)
    with cuda_on_host(seed=2):
        check_formulas(rng, 3, 40)


@needs_compiler
@pytest.mark.parametrize(("size", "texts"), [((2, 3), ()), ((0, 3), TEXTS), ((2, 0), TEXTS)])
def test_without_formulas_or_rows_nothing_is_launched(rng, size, texts):
    with cuda_on_host():
        check_formulas(rng, *size, texts=texts)


@needs_compiler
def test_features_that_are_not_contiguous_are_refused():
    program = FormulaBuilder(NAMES).program()
    with cuda_on_host(), pytest.raises(ShapeError, match="features"):
        cuda_formulas.formulas(program, np.zeros((4, 3, 2), np.float32).transpose(2, 1, 0))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [*SIZES, (500, 1), (10, 8192)], ids=str)
def test_formulas_give_the_bits_of_the_cpu_on_a_gpu(rng, size):
    check_formulas(rng, *size)


def test_constants_of_the_kernel_are_those_of_the_program():
    source = load_kernel_source("formulas")
    assert enum_of(source, "Code") == {code.name: int(code) for code in Code}
    assert f"#define FORMULA_THREADS {cuda_formulas.THREADS}\n" in source
    assert f"#define FORMULA_STACK {STACK}\n" in source
