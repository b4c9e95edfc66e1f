"""The host shim itself: it runs what is right and catches what a GPU would answer with a hang or garbage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpuscalp.ops import cuda_module
from tests.host_shim.build import Entry, ShimError, compiler, define_options, entries_of
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.host_kernel import HostKernel
from tests.host_shim.sanitized import run_sanitized, sanitizer_missing
from tests.host_shim.tools import skip_without

SOURCE = Path(__file__).with_name("selftest.cu")
SEEDS = (None, 1, 2, 3)

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")


@pytest.fixture(scope="module")
def kernel() -> HostKernel:
    if compiler() is None:
        skip_without("there is no g++ to build kernels with")
    return HostKernel("selftest", source=SOURCE.read_text())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [1, 31, 64, 65, 1000])
def test_launch_reduces_through_static_shared_memory(kernel: HostKernel, n: int, seed: int | None) -> None:
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    blocks = -(-n // 64)
    sums = np.full(blocks, 7, np.float32)
    kernel.launch("block_sums", (blocks,), (64,), (x, sums, np.int32(n)), seed=seed)
    tree = np.concatenate([x, np.zeros(blocks * 64 - n, np.float32)]).reshape(blocks, 64)
    while tree.shape[1] > 1:
        tree = tree[:, : tree.shape[1] // 2] + tree[:, tree.shape[1] // 2 :]
    assert np.array_equal(sums.view(np.uint32), tree[:, 0].copy().view(np.uint32))


@pytest.mark.parametrize("seed", SEEDS)
def test_launch_uses_dynamic_shared_memory(kernel: HostKernel, seed: int | None) -> None:
    x = np.arange(96.0)
    y = np.zeros(96)
    kernel.launch("reverse", (3,), (32,), (x, y), shared_bytes=32 * 8, seed=seed)
    assert np.array_equal(y, x.reshape(3, 32)[:, ::-1].ravel())


@pytest.mark.parametrize("seed", SEEDS)
def test_launch_numbers_threads_in_three_dimensions(kernel: HostKernel, seed: int | None) -> None:
    out = np.full(24 * 30, -1, np.int32)
    kernel.launch("flat_index", (2, 3, 4), (5, 3, 2), (out,), seed=seed)
    assert np.array_equal(out.reshape(24, 30), np.arange(24)[:, None] * 1000 + np.arange(30))


def test_launch_runs_a_block_of_1024_threads(kernel: HostKernel) -> None:
    out = np.full(1024, -1, np.int32)
    kernel.launch("flat_index", (1,), (1024,), (out,))
    assert np.array_equal(out, np.arange(1024))


def test_a_missing_barrier_shows_as_results_that_depend_on_the_order(kernel: HostKernel) -> None:
    results = set()
    for seed in SEEDS:
        y = np.zeros(32)
        kernel.launch("reverse_racing", (1,), (32,), (np.arange(32.0), y), shared_bytes=256, seed=seed)
        results.add(y.tobytes())
    assert len(results) > 1


def test_unset_shared_memory_is_not_zero(kernel: HostKernel) -> None:
    results = set()
    for seed in range(8):
        y = np.zeros(1, np.int32)
        kernel.launch("sum_unset", (1,), (4,), (np.arange(4, dtype=np.int32), y), seed=seed)
        results.add(int(y[0]))
    assert 6 not in results
    assert len(results) > 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_threads_that_diverge_at_a_barrier_are_an_error(
    kernel: HostKernel, mode: int, seed: int | None
) -> None:
    out = np.zeros(8, np.int32)
    with pytest.raises(ShimError, match=r"block \(0, 0, 0\): divergent barrier: thread \("):
        kernel.launch("diverge", (1,), (8,), (np.int32(5), np.int32(mode), out), seed=seed)
    # The library is usable afterwards: the threads that were left waiting do not come back.
    kernel.launch("diverge", (1,), (8,), (np.int32(-1), np.int32(7), out), seed=seed)
    assert (out == 7).all()


@pytest.mark.parametrize("at", [-1, 8, 9, -64])
def test_a_store_outside_an_array_is_an_error(kernel: HostKernel, at: int) -> None:
    out = np.zeros(8, np.int32)
    args = (out, np.zeros(8, np.int32), np.int64(at), np.int32(3), np.bool_(False))
    with pytest.raises(ShimError, match="wrote outside an array of 32 bytes"):
        kernel.launch("store", (1,), (1,), args)
    assert (out == 0).all()


def test_a_store_through_const_is_an_error(kernel: HostKernel) -> None:
    args = (np.zeros(8, np.int32), np.zeros(8, np.int32), np.int64(2), np.int32(3), np.bool_(True))
    with pytest.raises(ShimError, match="takes as const"):
        kernel.launch("store", (1,), (1,), args)


def test_arrays_that_overlap_do_so_in_the_kernel(kernel: HostKernel) -> None:
    both = np.arange(8, dtype=np.int32)
    kernel.launch("load", (1,), (1,), (both[2:], both[:1], np.int64(3)))
    assert both[0] == 5


def test_a_store_past_dynamic_shared_memory_is_an_error(kernel: HostKernel) -> None:
    kernel.launch("store_shared", (1,), (1,), (np.int32(4),), shared_bytes=20)
    with pytest.raises(ShimError, match="past the 20 bytes of dynamic shared memory"):
        kernel.launch("store_shared", (1,), (1,), (np.int32(5),), shared_bytes=20)


def test_products_are_rounded_before_they_are_added(kernel: HostKernel) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, 4096)).astype(np.float32)
    c = -(a * b)
    y = np.ones(4096, np.float32)
    kernel.launch("multiply_add", (1,), (1,), (a, b, c, y, np.int32(4096)))
    assert (y == 0).all()


def test_denormals_are_kept(kernel: HostKernel) -> None:
    a = np.full(8, 2.0**-100, np.float32)
    b = np.full(8, 2.0**-40, np.float32)
    y = np.zeros(8, np.float32)
    kernel.launch("multiply_add", (1,), (1,), (a, b, np.zeros(8, np.float32), y, np.int32(8)))
    assert (y == np.float32(2.0**-140)).all()


def test_minimum_maximum_and_conversion_follow_the_gpu(kernel: HostKernel) -> None:
    nan, inf = np.nan, np.inf
    a = np.array([nan, 1.0, -0.0, 0.0, 2.5, inf, -inf, 3e9], np.float32)
    b = np.array([1.0, nan, 0.0, -0.0, 3.5, 1.0, 1.0, 1.0], np.float32)
    least, most = np.zeros((2, 8), np.float32)
    rounded = np.zeros(8, np.int32)
    kernel.launch("extremes", (1,), (1,), (a, b, least, most, rounded, np.int32(8)))
    assert np.array_equal(
        least.view(np.uint32), np.array([1, 1, -0.0, -0.0, 2.5, 1, -inf, 1], np.float32).view(np.uint32)
    )
    assert np.array_equal(
        most.view(np.uint32), np.array([1, 1, 0.0, 0.0, 3.5, inf, 1, 3e9], np.float32).view(np.uint32)
    )
    limits = np.iinfo(np.int32)
    assert rounded.tolist() == [0, 1, 0, 0, 2, limits.max, limits.min, limits.max]


@pytest.mark.parametrize(
    ("grid", "block", "shared_bytes", "message"),
    [
        ((0,), (1,), 0, "grid"),
        ((1, 70000), (1,), 0, "grid"),
        ((1, 1, 1, 1), (1,), 0, "grid"),
        ((1,), (0,), 0, "block"),
        ((1,), (1, 1, 65), 0, "block"),
        ((1,), (32, 33), 0, "1056 threads, 1024 allowed"),
        ((1,), (1,), 49153, "49153 bytes of shared memory"),
    ],
)
def test_launch_refuses_a_geometry_that_a_gpu_refuses(
    kernel: HostKernel, grid: tuple[int, ...], block: tuple[int, ...], shared_bytes: int, message: str
) -> None:
    with pytest.raises(ShimError, match=message):
        kernel.launch("flat_index", grid, block, (np.zeros(4096, np.int32),), shared_bytes=shared_bytes)


def test_launch_refuses_a_block_beyond_the_launch_bounds(kernel: HostKernel) -> None:
    args = (np.zeros(128, np.float32), np.zeros(1, np.float32), np.int32(128))
    with pytest.raises(ShimError, match="128 threads, 64 allowed"):
        kernel.launch("block_sums", (1,), (128,), args)


F4 = np.zeros(64, np.float32)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((F4, F4), "takes 3 arguments"),
        ((F4, F4, 64), "given a int"),
        ((F4, F4, np.int64(64)), "parameter i4 given int64"),
        ((F4.astype(np.float64), F4, np.int32(64)), "given float64"),
        ((F4, F4.view(np.int32), np.int32(64)), "given int32"),
        ((np.zeros(128, np.float32)[::2], F4, np.int32(64)), "not C-contiguous"),
        ((F4, np.frombuffer(bytes(256), np.float32), np.int32(64)), "read-only"),
        ((F4, np.float32(0), np.int32(64)), "given a float32"),
        ((F4, F4, np.full(1, 64, np.int32)), "given a ndarray"),
    ],
)
def test_launch_refuses_arguments_of_another_type(
    kernel: HostKernel, args: tuple[np.ndarray, ...], message: str
) -> None:
    with pytest.raises(ShimError, match=message):
        kernel.launch("block_sums", (1,), (64,), args)


def test_an_unknown_entry_point_is_an_error(kernel: HostKernel) -> None:
    with pytest.raises(ShimError, match="no entry point 'sums'"):
        kernel.launch("sums", (1,), (1,), ())


@needs_compiler
def test_cuda_on_host_runs_a_launcher_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.host_shim.host_kernel.load_kernel_source", lambda _: SOURCE.read_text())

    def reverse(values: np.ndarray, *, block: int) -> np.ndarray:
        import cupy

        x = cupy.array(values)
        y = cupy.empty_like(x)
        run = cuda_module.load_module("selftest").get_function("reverse")
        run((len(x) // block,), (block,), (x, y), shared_mem=block * 8)
        return np.asarray(cupy.asnumpy(y))

    for seed in SEEDS:
        with cuda_on_host(seed=seed):
            assert reverse(np.arange(8.0), block=4).tolist() == [3, 2, 1, 0, 7, 6, 5, 4]
            with pytest.raises(ShimError, match="an array of the host"):
                cuda_module.load_module("selftest").get_function("reverse")(
                    (1,), (1,), (np.zeros(1), np.zeros(1)), shared_mem=8
                )
            assert cuda_module.load_module("selftest") is cuda_module.load_module("selftest")
            with pytest.raises(ShimError, match="no entry point"):
                cuda_module.load_module("selftest").get_function("forward")
    assert not any(stem == "selftest" for stem, *_ in cuda_module._MODULES)


def test_define_options_are_ordered_by_name() -> None:
    assert define_options({"B": 2, "A": "x"}) == ("-DA=x", "-DB=2")
    assert define_options({"ON": True}) == ("-DON=1",)
    assert define_options(None) == ()


@needs_compiler
def test_defines_reach_the_source() -> None:
    small = HostKernel("selftest", source=SOURCE.read_text(), defines={"TILE": 32})
    args = (np.zeros(64, np.float32), np.zeros(1, np.float32), np.int32(64))
    with pytest.raises(ShimError, match="64 threads, 32 allowed"):
        small.launch("block_sums", (1,), (64,), args)


@needs_compiler
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('extern "C" __global__ void k(float* x) { x[0] = y; }', "k.cu:1:"),
        ('extern "C" __global__ void k(float* x) { atomicAdd(x, 1.0f); }', "deleted function"),
        ('extern "C" __global__ void k(int* x) { x[0] = __shfl_sync(~0u, x[0], 0); }', "__shfl_sync"),
        ("template <class T> __global__ void k(T* x) { x[0] = 1; }", "k.cu"),
        ("extern __shared__ int s[];\n__global__ void k(int* x) { x[0] = s[0]; }", "inside the kernel"),
        ("__global__ static void k(int* x) { x[0] = 0; }", "unknown form"),
    ],
)
def test_a_source_the_shim_cannot_run_is_refused(source: str, message: str) -> None:
    with pytest.raises(ShimError, match=message):
        HostKernel("k", source=source)


def test_entries_of_reads_both_places_of_launch_bounds_and_skips_comments() -> None:
    source = """
    // __global__ void not_me(int* x)
    extern "C" __global__ void __launch_bounds__(THREADS, 2) a(int* x) {}
    extern "C" { __global__ __launch_bounds__(64) void b() {} /* __global__ */ __global__ void c() {} }
    """
    assert entries_of(source) == (Entry("a", "THREADS"), Entry("b", "64"), Entry("c", None))


@pytest.mark.slow
@pytest.mark.skipif(sanitizer_missing() is not None, reason=f"no sanitizer: {sanitizer_missing()}")
def test_sanitized_build_finds_loads_outside_memory() -> None:
    prelude = f"""
import numpy as np
from pathlib import Path
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.host_kernel import HostKernel
kernel = HostKernel("selftest", source=Path({str(SOURCE)!r}).read_text(), watch="memory")
out = np.zeros(1, np.int32)
"""
    clean = """
x, sums = np.arange(100, dtype=np.float32), np.zeros(2, np.float32)
kernel.launch("block_sums", (2,), (64,), (x, sums, np.int32(100)), seed=1)
kernel.launch("load", (1,), (1,), (np.zeros(7, np.int32), out, np.int64(6)))
kernel.launch("store_shared", (1,), (1,), (np.int32(4),), shared_bytes=20)
print(*sums)
"""
    outcome = run_sanitized(prelude + clean)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "2016.0 2934.0\n"
    for fault in (
        'kernel.launch("load", (1,), (1,), (np.zeros(7, np.int32), out, np.int64(7)))',
        'kernel.launch("store_shared", (1,), (1,), (np.int32(5),), shared_bytes=20)',
    ):
        outcome = run_sanitized(prelude + fault)
        assert outcome.returncode == 86, outcome.stderr
        assert "selftest.cu:" in outcome.stderr
