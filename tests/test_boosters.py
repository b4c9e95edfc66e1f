"""XGBoost's own margins: the forest's bits on a CPU, and an error wherever it would change the device."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from gpuscalp.boosters import Boosters
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.cuda_inference import CudaInference
from gpuscalp.errors import DeviceError, MemberError
from gpuscalp.forest_reader import read_booster
from gpuscalp.ops.forest import Forest, ForestScratch, predict_margins
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.xgb import import_xgboost
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.host_device import DeviceArray
from tests.random_ticks import instruments, random_ticks

ROWS, MEMBERS, CLASSES = 400, 2, 3


def train(rng, objective, columns):
    """Return the members as a bundle holds them, the forest of the same boosters, and rows with holes."""
    xgboost = import_xgboost()
    x = rng.standard_normal((ROWS, columns)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    many = objective.startswith("multi")
    target = rng.integers(0, CLASSES if many else 2, ROWS)
    names = [f"column {index}" for index in range(columns)]
    matrix = xgboost.QuantileDMatrix(x, target, feature_names=names)
    params = {"objective": objective, "max_depth": 4, "subsample": 0.7, "nthread": 1}
    if many:
        params["num_class"] = CLASSES
    boosters = [xgboost.train(params | {"seed": seed}, matrix, 12) for seed in range(MEMBERS)]
    forest = Forest.join([read_booster(bytes(booster.save_raw("json"))) for booster in boosters])
    return [bytes(booster.save_raw("ubj")) for booster in boosters], forest, x


def of_forest(forest, x):
    out = np.empty((forest.member_count, len(x), forest.class_count), np.float32)
    predict_margins(forest, x, out=out, scratch=ForestScratch.of(forest))
    return out


@pytest.mark.parametrize("objective", ["multi:softprob", "binary:logistic"])
def test_margins_have_the_bits_of_the_forest_on_a_cpu(rng, objective):
    members, forest, x = train(rng, objective, 9)
    boosters = Boosters(members, "cpu")
    for rows in (x[:1], x[:63], x):
        out = np.full((MEMBERS, len(rows), forest.class_count), 77, np.float32)
        boosters.margins(rows, out)
        assert np.array_equal(out.view(np.uint32), of_forest(forest, rows).view(np.uint32))


class _OnGpu:
    """Anything that says that it lies on a GPU."""

    __cuda_array_interface__ = {"version": 3}  # noqa: RUF012


@pytest.mark.parametrize("where", ["x", "out"])
def test_rows_or_margins_on_another_device_are_refused(rng, where):
    members, _, x = train(rng, "binary:logistic", 5)
    boosters = Boosters(members, "cpu")
    arrays = {"x": x, "out": np.empty((MEMBERS, ROWS, 1), np.float32), where: _OnGpu()}
    with pytest.raises(DeviceError, match="different devices") as caught:
        boosters.margins(**arrays)
    assert caught.value.where == where


def test_a_device_that_xgboost_has_changed_is_an_error(rng, monkeypatch):
    """Without a GPU XGBoost warns once and works on the CPU."""
    members, _, _ = train(rng, "binary:logistic", 5)
    config = '{"learner": {"generic_param": {"device": "cpu"}}}'
    monkeypatch.setattr(import_xgboost().Booster, "save_config", lambda _: config)
    with pytest.raises(DeviceError, match="another device") as caught:
        Boosters(members, "cuda")
    assert caught.value.value == "cpu instead of cuda"


def test_a_warning_about_devices_is_an_error_and_another_one_stays_a_warning(rng, monkeypatch):
    members, _, _ = train(rng, "binary:logistic", 5)
    booster = import_xgboost().Booster
    predict = booster.inplace_predict

    def warns(message):
        def inplace_predict(self, *args, **options):
            warnings.warn(message, UserWarning, stacklevel=2)
            return predict(self, *args, **options)

        monkeypatch.setattr(booster, "inplace_predict", inplace_predict)

    warns("WARNING: Falling back to prediction using DMatrix due to mismatched devices.")
    with pytest.raises(DeviceError, match="not do what it was asked"):
        Boosters(members, "cpu")
    warns("WARNING: the model is old")
    with pytest.warns(UserWarning, match="the model is old"):
        Boosters(members, "cpu")


def test_what_is_no_member_is_an_error_that_names_it(rng):
    members, _, _ = train(rng, "binary:logistic", 5)
    with pytest.raises(MemberError) as caught:
        Boosters([members[0], b"{}"], "cpu")
    assert caught.value.where == "member 1"


class _LateBooster:
    """As XGBoost's on CUDA: returns while its stream still works, and copies on the one that is current."""

    def load_model(self, data):
        self._factor = np.float32(data[0])

    def set_param(self, params):
        assert params["device"] == "cuda"

    def save_config(self):
        return '{"learner": {"generic_param": {"device": "cuda:0"}}}'

    def num_features(self):
        return 4

    def inplace_predict(self, x, *, predict_type, missing, strict_shape):
        import cupy

        assert (predict_type, strict_shape) == ("margin", True)
        assert np.isnan(missing)
        margins = cupy.empty((len(x), 1), np.float32)

        def work():
            np.asarray(margins)[:] = np.asarray(x).sum(axis=1, keepdims=True) * self._factor

        margins.gpu.library.put(work)
        return cupy.array(margins)


def test_margins_on_a_gpu_are_read_when_xgboost_has_made_them(monkeypatch):
    """The copy inside ``inplace_predict`` was once made on the engine's stream, which waits for no other."""
    made = SimpleNamespace(Booster=_LateBooster, core=SimpleNamespace(XGBoostError=ValueError))
    monkeypatch.setattr("gpuscalp.boosters.import_xgboost", lambda: made)
    monkeypatch.setattr("gpuscalp.boosters.check_booster", lambda data, where: None)  # they are none
    monkeypatch.setattr("gpuscalp.boosters.on_gpu", lambda array: isinstance(array, DeviceArray))
    with cuda_on_host():
        import cupy

        boosters = Boosters([bytes([factor]) for factor in (3, 5)], "cuda")
        rows = np.arange(24, dtype=np.float32).reshape(6, 4)
        with cupy.cuda.Stream(non_blocking=True):
            x, out = cupy.zeros((6, 4), np.float32), cupy.zeros((2, 6, 1), np.float32)
            x[:] = cupy.array(rows)
            boosters.margins(x, out)
            found = np.array(out, subok=False)  # as it lies: it waits for both streams itself
    sums = rows.sum(axis=1, keepdims=True)
    assert found.tolist() == [(3 * sums).tolist(), (5 * sums).tolist()]


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["multi:softprob", "binary:logistic"])
def test_stream_with_xgboost_on_a_gpu(rng, objective):
    """Several classes: the forest's bits. Two: XGBoost adds the base score last, a dozen roundings differ."""
    pipelines = {
        device: FeaturePipeline(
            grid=GridConfig(frame_ms=20),
            features=FeatureConfig(),
            instruments=instruments(40),
            device=device,
        )
        for device in ("cpu", "cuda")
    }
    members, forest, x = train(rng, objective, len(pipelines["cpu"].graph))
    ours = CudaInference(pipelines["cuda"], forest)
    theirs = CudaInference(pipelines["cuda"], forest, margins=Boosters(members, "cuda").margins)
    tolerance = 0 if objective.startswith("multi") else 32 * np.finfo(np.float32).eps
    for closed in pipelines["cpu"].stream().close(random_ticks(3, 5_000, 40, step_ms=1.0)):
        wanted, got = ours.step(closed), theirs.step(closed)
        assert np.array_equal(got.digests, wanted.digests)
        np.testing.assert_allclose(got.margins, wanted.margins, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(theirs.margins(x), of_forest(forest, x), rtol=tolerance, atol=tolerance)
