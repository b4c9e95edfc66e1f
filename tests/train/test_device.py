"""Training on a GPU: the same rows, the same forest, in the form that fits, and compared with the CPU.

On the host by the kernels' own sources, with XGBoost told to stay on the CPU; on a GPU if asked.
"""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from functools import partial
from unittest import mock

import numpy as np
import pytest

from gpuscalp.boosters import Boosters
from gpuscalp.bundle import read_contract
from gpuscalp.errors import DeviceError, ParityError
from gpuscalp.ops.ledger import LEDGER
from gpuscalp.schema import FeatureChunk
from gpuscalp.train import device as place
from gpuscalp.train import distribution, train
from gpuscalp.train.dataset import count_rows, labelled_chunks
from gpuscalp.train.device import binned_bytes, training_device
from gpuscalp.train.distribution import RowSample
from gpuscalp.train.iterator import binned_matrix
from gpuscalp.train.source import chunk_frames
from tests.host_shim.build import compiler
from tests.host_shim.gpu_on_host import gpu_on_host
from tests.train.market import FakeSource, quick_config

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

FAKE_CARD = {"name": "a fake", "compute_capability": "9.0", "memory_bytes": 1 << 35, "driver_version": "13.0"}


class SourceOnGpu(FakeSource):
    """Its features lie on the device, as those of a pipeline do."""

    def chunks(self):
        put = training_device("cuda").put
        for chunk in super().chunks():
            yield FeatureChunk(chunk.frames, put(chunk.features))


class BoostersOnHost:
    """``Boosters`` of a GPU: the arrays that it is given are the host's."""

    def __init__(self, members, device):
        assert device == "cuda"
        self._boosters = Boosters(members, "cpu")

    def margins(self, x, out):
        self._boosters.margins(np.asarray(x), np.asarray(out))


@contextmanager
def trained_on_host(seed=None):
    """A GPU that is there. XGBoost trains and predicts on the CPU, whatever it is told."""
    import xgboost

    from gpuscalp.train import fit

    parameters = fit.parameters

    def on_cpu(config, **named):
        return parameters(config, **(named | {"device": "cpu"}))

    with (
        gpu_on_host(seed) as device,
        mock.patch("gpuscalp.device.probe_cuda", return_value=FAKE_CARD),
        mock.patch.object(fit, "parameters", on_cpu),
        mock.patch.object(fit, "check_device"),
        mock.patch.object(xgboost, "build_info", return_value={"USE_CUDA": True}),
        mock.patch.object(xgboost, "config_context", return_value=nullcontext()),
        mock.patch.object(place, "Boosters", BoostersOnHost),
        mock.patch.object(place, "GPU_BLOCK_BYTES", 1),
    ):
        yield device


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same run on the CPU and on a GPU on the host."""
    if compiler() is None:
        pytest.skip("there is no g++ to build kernels with")
    folder = tmp_path_factory.mktemp("runs")
    on_cpu = train(FakeSource(frame_count=2_000), quick_config(), folder / "cpu", device="cpu", threads=1)
    with trained_on_host(seed=1):
        source = SourceOnGpu(frame_count=2_000)
        on_gpu = train(source, quick_config(), folder / "cuda", device="cuda", threads=1)
    return on_cpu, on_gpu


def test_run_on_a_gpu_gives_the_forest_and_the_scores_of_the_cpu(both):
    on_cpu, on_gpu = both
    assert [read_contract(result.bundle).training.device for result in both] == ["cpu", "cuda"]
    forests = [(result.bundle / "forest.npz").read_bytes() for result in both]
    assert forests[0] == forests[1]
    assert on_gpu.overall.to_dict() == on_cpu.overall.to_dict()


def test_report_compares_the_devices_and_says_why_a_run_on_the_cpu_does_not(both):
    on_cpu, on_gpu = both
    answer = json.loads(json.dumps(on_gpu.to_dict()))["device_comparison"]
    assert answer["made"]
    assert answer["rows"] == on_gpu.overall.rows
    assert answer["forest_margins_compared"] == on_gpu.overall.rows * 2 * 3
    # XGBoost runs on the CPU here, whose bits the forest has.
    assert answer["xgboost_margin_difference"] == 0.0
    assert answer["class_flips_per_million"] == answer["decision_flips_per_million"] == 0.0
    assert "flips per million rows" in (on_gpu.bundle / "report.html").read_text()
    assert on_cpu.to_dict()["device_comparison"] == {
        "made": False,
        "reason": "not made: this run used no GPU, so there are no predictions of a second device",
    }
    assert "this run used no GPU" in (on_cpu.bundle / "report.html").read_text()


@needs_compiler
def test_a_bit_that_differs_between_the_forests_ends_the_run(tmp_path):
    def other(forest):
        right = training_device("cpu").predictor(forest)
        return lambda x: np.nextafter(right(x), np.float32(9.0))

    with (
        trained_on_host(),
        mock.patch.object(place, "predict_host", other),
        pytest.raises(ParityError, match="same margins on both devices"),
    ):
        train(SourceOnGpu(frame_count=1_500), quick_config(), tmp_path / "m", device="cuda", threads=1)
    assert not (tmp_path / "m").exists()


@needs_compiler
def test_rows_are_gathered_on_a_gpu_as_on_the_host():
    with trained_on_host():
        check_gather()


@pytest.mark.gpu
def test_rows_are_gathered_as_on_the_host_on_a_gpu():
    check_gather()


def check_gather():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((37, 90)).astype(np.float32)
    host, gpu = training_device("cpu"), training_device("cuda")
    for at in (np.arange(90), np.array([0, 3, 4, 89]), np.array([7])):
        found = gpu.gather(gpu.put(features), at)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(gpu.to_host(found), host.gather(features, at))


@needs_compiler
def test_memory_of_the_pool_is_bounded_during_a_run_and_free_again_after_it():
    with trained_on_host() as device:
        import cupy

        pool = cupy.get_default_memory_pool()
        pool.set_limit(size=123)
        gpu = training_device("cuda")
        with gpu.session():
            assert pool.get_limit() == device.free_bytes // 4
        assert pool.get_limit() == 123
        device.free_bytes = 80 << 30
        assert training_device("cuda").chunk_bytes == place.GPU_CHUNK_BYTES


@needs_compiler
def test_a_limit_makes_the_gpu_look_smaller_and_never_larger():
    with trained_on_host() as device:
        import cupy

        device.free_bytes = 8 << 30
        gpu = training_device("cuda", gpu_memory_mb=2_048)
        assert gpu.chunk_bytes == (2 << 30) // 32
        with gpu.session():
            assert cupy.get_default_memory_pool().get_limit() == (2 << 30) // 4
        rows, columns = 5_000_000, 214  # more than 0.4 of 2 GiB, less than that of 8
        assert gpu.matrix_type(rows, columns, 256) == "ExtMemQuantileDMatrix"
        assert training_device("cuda").matrix_type(rows, columns, 256) == "QuantileDMatrix"
        assert training_device("cuda", gpu_memory_mb=1 << 20).chunk_bytes == (8 << 30) // 32


@needs_compiler
def test_xgboost_without_cuda_is_an_error_before_anything_is_read(tmp_path):
    source = FakeSource(frame_count=1_500)
    with (
        trained_on_host(),
        mock.patch("xgboost.build_info", return_value={"USE_CUDA": False}),
        pytest.raises(DeviceError, match="built without CUDA"),
    ):
        train(source, quick_config(), tmp_path / "m", device="cuda", threads=1)
    assert source.walks == 0


@needs_compiler
def test_memory_that_runs_out_is_said_with_what_to_do():
    with trained_on_host():
        gpu = training_device("cuda")
        with pytest.raises(DeviceError, match="do not fit the GPU") as caught, gpu.session():
            raise MemoryError("out of memory allocating 512 bytes")
    assert "fewer symbols" in str(caught.value.fix)


@needs_compiler
def test_memory_that_xgboost_does_not_get_is_said_too_and_its_other_errors_are_its_own():
    """XGBoost tells a shortage in the text of the error that it raises for everything."""
    import xgboost

    shortage = "Memory allocation error: std::bad_alloc: cudaErrorMemoryAllocation: out of memory\n- Free: 7"
    with trained_on_host():
        gpu = training_device("cuda")
        with pytest.raises(DeviceError, match="too little free memory for XGBoost") as caught, gpu.session():
            raise xgboost.core.XGBoostError(shortage)
        assert caught.value.value == shortage.splitlines()[0]
        with pytest.raises(xgboost.core.XGBoostError, match="label"), gpu.session():
            raise xgboost.core.XGBoostError("Check failed: label set is empty")


def test_binned_rows_take_the_bits_that_number_all_bins_and_nothing():
    assert binned_bytes(8, 1, 255) == 8  # 256 symbols: 8 bits
    assert binned_bytes(8, 1, 256) == 9  # 257 symbols: 9 bits
    assert binned_bytes(8_000, 214, 256) == 9_000 * 214
    assert binned_bytes(10**8, 214, 64) == 10**8 * 214 * 7 // 8


@needs_compiler
def test_rows_that_do_not_fit_the_gpu_are_kept_in_the_memory_of_the_host():
    with trained_on_host() as device:
        gpu = training_device("cuda")
        most = int(0.4 * device.free_bytes) * 8 // (214 * 9)
        assert gpu.matrix_type(most, 214, 256) == "QuantileDMatrix"
        assert gpu.matrix_type(most + 1, 214, 256) == "ExtMemQuantileDMatrix"
    assert training_device("cpu").matrix_type(10**12, 214, 256) == "QuantileDMatrix"


@needs_compiler
def test_one_row_of_no_weight_that_misses_nothing_is_added_on_a_gpu():
    """Without it XGBoost keeps 16 bits of a value where 9 are enough."""
    with trained_on_host():
        device = training_device("cuda")
        stream = stream_of(SourceOnGpu(frame_count=900), device)
        matrix, tally = binned_matrix(stream, device=device, max_bin=32, threads=1, what="rows")
        whole = np.concatenate([device.to_host(rows.x) for rows in stream()])
        whole[:, -1] = np.nan
        added = device.to_host(device.complete_row(device.put(whole)))
    first = [next((x for x in column if not np.isnan(x)), 0.0) for column in whole.T]
    assert added.tolist() == [first]
    assert matrix.num_row() == tally.rows + 1
    assert np.flatnonzero(matrix.get_weight() == 0.0).tolist() == [tally.rows]


def stream_of(source, device):
    config = quick_config()

    def walk():
        for chunk in labelled_chunks(source.chunks(), config):
            yield from chunk.rows(chunk.taken, device)

    return walk


class Altered:
    """The CPU's device with a matrix of a given form, and blocks of a given size."""

    def __init__(self, form, block_bytes=1):
        self._host = training_device("cpu")
        self._form = form
        self.block_bytes = block_bytes
        self.asked = []

    def __getattr__(self, name):
        return getattr(self._host, name)

    def matrix_type(self, rows, columns, max_bin):
        self.asked.append((rows, columns, max_bin))
        return self._form


def test_matrix_of_the_other_form_trains_the_same_model(tmp_path, monkeypatch):
    """And its stopping rows take the form over."""
    import xgboost

    monkeypatch.chdir(tmp_path)  # on a CPU the external memory is a file
    source = FakeSource(frame_count=900, cut=300)
    found = {}
    for form in ("QuantileDMatrix", "ExtMemQuantileDMatrix"):
        device = Altered(form)
        given = {"device": device, "max_bin": 32, "threads": 1}
        stream = stream_of(source, device)
        matrix, _ = binned_matrix(stream, what="rows", expected_rows=77, **given)
        stopping, _ = binned_matrix(stream, what="stopping rows", reference=matrix, **given)
        assert device.asked == [(77, 6, 32)]
        assert type(matrix).__name__ == type(stopping).__name__ == form
        parameters = {"objective": "multi:softprob", "num_class": 3, "max_bin": 32, "nthread": 1}
        found[form] = bytes(xgboost.train(parameters, matrix, num_boost_round=3).save_raw("json"))
    assert found["QuantileDMatrix"] == found["ExtMemQuantileDMatrix"]


@needs_compiler
def test_pages_on_a_gpu_lie_in_the_memory_of_the_host_and_are_sized_by_the_limit():
    """XGBoost sized them by the whole card, and kept them there up to half of it."""
    import xgboost

    told = []

    class Matrix(xgboost.QuantileDMatrix):
        def __init__(self, walk, *, cache_host_ratio, **options):
            told.append((cache_host_ratio, walk.min_cache_page_bytes))
            super().__init__(walk, **options)

    with (
        trained_on_host(),
        mock.patch.object(place, "BINNED_SHARE", 0.0),
        mock.patch.object(xgboost, "ExtMemQuantileDMatrix", Matrix),
    ):
        device = training_device("cuda", gpu_memory_mb=2_048)
        given = {"device": device, "max_bin": 32, "threads": 1}
        stream = stream_of(SourceOnGpu(frame_count=900), device)
        matrix, _ = binned_matrix(stream, what="rows", expected_rows=900, **given)
        binned_matrix(stream, what="stopping rows", reference=matrix, **given)
    assert told == [(1.0, 128 << 20)] * 2


def test_small_blocks_are_joined_and_no_row_is_lost():
    source = FakeSource(frame_count=900, cut=100)
    device = Altered("QuantileDMatrix", block_bytes=450 * 6 * 4)
    whole = np.concatenate([rows.x for rows in stream_of(source, device)()])
    sizes = []
    device.join = lambda blocks: sizes.append(len(blocks)) or np.concatenate(blocks)
    matrix, tally = binned_matrix(
        stream_of(source, device), device=device, max_bin=32, threads=1, what="rows"
    )
    assert matrix.num_row() == tally.rows == len(whole)
    assert max(sizes) > 2


def test_chunks_grow_with_the_memory_for_them():
    assert chunk_frames(4) == 3_906
    assert chunk_frames(1) == 4_096
    assert chunk_frames(100) == 1_024
    assert chunk_frames(512, place.GPU_CHUNK_BYTES) == 4_096  # whole steps of the ladder's blocks
    assert chunk_frames(1, place.GPU_CHUNK_BYTES) == 4_096 * 134


def test_device_that_cannot_run_is_an_error():
    from tests.conftest import missing_gpu

    if missing_gpu() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError):
        training_device("cuda")


# XGBoost warns where the card cannot read the host's pages, or the process is bound to no NUMA node.
@pytest.mark.filterwarnings("ignore:.*overhead of iterating through external memory")
@pytest.mark.gpu
@pytest.mark.parametrize("share", [place.BINNED_SHARE, 0.0], ids=["in its memory", "external memory"])
@pytest.mark.parametrize("cap", [{}, {"gpu_memory_mb": place.MEMORY_MIN_MB}], ids=["all of it", "capped"])
def test_run_on_a_gpu(tmp_path, monkeypatch, share, cap):
    monkeypatch.setattr(place, "BINNED_SHARE", share)
    source = SourceOnGpu(frame_count=4_000)
    result = train(source, quick_config(), tmp_path / "m", device="cuda", threads=2, **cap)
    assert result.training.device == "cuda"
    assert result.overall.ic.low > 0.1
    assert result.devices.made
    assert result.devices.margin < 1e-5
    assert result.devices.class_flips_per_million < 1_000


@needs_compiler
def test_no_more_rows_come_to_the_host_than_are_kept():
    """Each walk of the reference sample fetched the float matrix nearly whole, and chose on the host."""
    config = quick_config()
    source = FakeSource(frame_count=1_500)
    counts = count_rows(labelled_chunks(source.chunks(), config))
    sample_of = partial(RowSample, grid=config.grid, stride=1, counts=counts, names=["f"] * 6, window=8)
    with (
        trained_on_host(),
        mock.patch.object(distribution, "ROWS_MAX", 100),
        mock.patch.object(distribution, "BLOCKS_MAX", 4),
    ):
        on_cpu, on_gpu = (sample_of(training_device(name)) for name in ("cpu", "cuda"))
        moved = []
        for _ in range(2):
            list(on_cpu.watch(stream_of(source, training_device("cpu"))()))
            before = LEDGER.total("device_to_host").bytes
            list(on_gpu.watch(stream_of(SourceOnGpu(frame_count=1_500), training_device("cuda"))()))
            moved.append(LEDGER.total("device_to_host").bytes - before)
        found, wanted = on_gpu.kept(), on_cpu.kept()
    assert found.x.tobytes() == wanted.x.tobytes()
    assert moved[0] == found.x.nbytes
    # Of 23 blocks of time every fifth is counted.
    assert 0 < moved[1] < counts.total * 6 * 4 / 4
