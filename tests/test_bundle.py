"""A bundle comes back as it was written, and anything else is refused in its own words with exit code 8."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gpuscalp.bundle import load_bundle, read_contract, write_bundle
from gpuscalp.bundle_files import file_spec, packed, unpacked
from gpuscalp.contract import Block, Contract, encode
from gpuscalp.errors import (
    CanaryError,
    FeatureMismatchError,
    MemberError,
    ModelError,
    UsageError,
)
from gpuscalp.train import train
from tests.train.market import GRAPH, FakeGraph, FakeSource, graph_of, quick_config

NAMES = [column.name for column in GRAPH.columns]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trained bundle; never changed."""
    path = tmp_path_factory.mktemp("bundle") / "model"
    train(FakeSource(frame_count=1_500), quick_config(), path, device="cpu", threads=1)
    return path


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def rewrite(bundle: Path, *, seal: bool = False, **changes: object) -> None:
    """Change fields of the contract, with or without making its digest fit again."""
    contract = msgspec.structs.replace(read_contract(bundle), **changes)
    (bundle / "contract.json").write_bytes(encode(contract.sealed() if seal else contract))


def refusal(bundle: Path, graph: object = GRAPH) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_bundle(bundle, graph=graph)  # type: ignore[arg-type]
    assert caught.value.exit_code == 8
    return caught.value


def test_bundle_comes_back_with_the_same_answers(made):
    loaded = load_bundle(made, graph=GRAPH)
    x = loaded.contract.canary.x.array("float32", "canary")
    assert x.shape == (32, len(NAMES))
    assert np.isnan(x).all(axis=1).any(), "a row without any value is among the canaries"
    signals = loaded.ensemble.predict(x)
    stored = loaded.contract.canary.margins.array("float32", "canary")
    assert signals.margins.tobytes() == stored.tobytes()
    assert loaded.contract.training.symbols == ("S0USDT", "S1USDT")
    assert [column.name for column in loaded.contract.columns] == NAMES


def test_bundle_holds_no_code_and_every_file_is_listed(made):
    contract = read_contract(made)
    listed = {each.path for each in contract.files}
    assert "reference.npz" in listed
    found = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert found == listed | {"contract.json", "report.html", "result.json"}
    with np.load(made / "forest.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "biufU" for name in arrays.files)


def test_permuted_columns_of_the_graph_are_refused(bundle):
    error = refusal(bundle, graph_of(NAMES[1], NAMES[0], *NAMES[2:]))
    assert isinstance(error, FeatureMismatchError)
    assert "another order" in error.what
    assert error.where == "column 0"


def test_permuted_columns_of_the_contract_are_refused(bundle):
    columns = read_contract(bundle).columns
    rewrite(bundle, columns=(columns[1], columns[0], *columns[2:]))
    assert "another order" in refusal(bundle).what


def test_missing_column_is_refused_by_name(bundle):
    error = refusal(bundle, graph_of(*NAMES[:-1], "other"))
    assert "does not have the columns" in error.what
    assert "constant" in str(error.value)
    assert "other" in str(error.value)


def test_changed_window_is_refused_by_column(bundle):
    columns = tuple(msgspec.structs.replace(c, window=16) if c.name == "sparse" else c for c in GRAPH.columns)
    error = refusal(bundle, FakeGraph(columns, GRAPH.hash))
    assert isinstance(error, FeatureMismatchError)
    assert "another window" in error.what
    assert error.where == "sparse"


def test_same_names_computed_differently_are_refused_by_the_hash(bundle):
    error = refusal(bundle, FakeGraph(GRAPH.columns, "0" * 64))
    assert "computes them differently" in error.what
    assert error.where == "graph hash"


def test_other_dtype_is_refused(bundle):
    rewrite(bundle, dtype="float64")
    error = refusal(bundle)
    assert isinstance(error, FeatureMismatchError)
    assert "another dtype" in error.what
    assert error.value == "float64"


@pytest.mark.parametrize("name", ["members/member_01.ubj", "forest.npz"])
def test_truncated_file_is_refused(bundle, name):
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[: len(data) // 2])
    error = refusal(bundle)
    assert isinstance(error, MemberError)
    assert "cut short" in error.what
    assert name in str(error.where)


def test_missing_member_is_refused(bundle):
    (bundle / "members" / "member_00.ubj").unlink()
    assert "missing" in refusal(bundle).what


def test_changed_byte_of_a_member_is_refused(bundle):
    path = bundle / "members" / "member_00.ubj"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "not the one" in refusal(bundle).what


def test_edited_contract_is_refused(bundle):
    rewrite(bundle, class_return_bps=(-9.0, 0.0, 9.0))
    assert "edited" in refusal(bundle).what


def test_other_calibration_fails_the_canary_even_with_a_fitting_digest(bundle):
    calibration = read_contract(bundle).calibration
    rewrite(bundle, seal=True, calibration=msgspec.structs.replace(calibration, bias=(0.5, 0.0, 0.0)))
    error = refusal(bundle)
    assert isinstance(error, CanaryError)
    assert "probability" in error.what


def test_other_margins_fail_the_canary_even_with_a_fitting_digest(bundle):
    canary = read_contract(bundle).canary
    margins = canary.margins.array("float32", "canary")
    margins[1, 7, 2] = np.nextafter(margins[1, 7, 2], np.float32(9))
    rewrite(bundle, seal=True, canary=msgspec.structs.replace(canary, margins=Block.of(margins)))
    error = refusal(bundle)
    assert isinstance(error, CanaryError)
    assert str(error.value).startswith("1 of ")


def test_canary_that_does_not_fill_its_shape_is_refused(bundle):
    canary = read_contract(bundle).canary
    for other in ({"data": canary.x.data[:-4]}, {"shape": (1 << 70,)}):
        x = msgspec.structs.replace(canary.x, **other)
        rewrite(bundle, seal=True, canary=msgspec.structs.replace(canary, x=x))
        assert "form it claims" in refusal(bundle).what


def test_file_outside_the_bundle_is_refused(bundle):
    forest = read_contract(bundle).forest
    for path in ("../forest.npz", "forest\0.npz"):
        rewrite(bundle, seal=True, forest=msgspec.structs.replace(forest, path=path))
        assert "outside" in refusal(bundle).what


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format": 99}', b'{"format": 2}', b"\xff"])
def test_contract_that_cannot_be_read_is_refused(bundle, data):
    (bundle / "contract.json").write_bytes(data)
    refusal(bundle)


def test_path_without_a_bundle_is_refused(tmp_path):
    assert "no bundle" in refusal(tmp_path / "nothing").what


def test_contract_of_json_round_trip_is_intact(made):
    contract = read_contract(made)
    assert contract.intact
    again = msgspec.json.decode(encode(contract), type=Contract)
    assert again == contract


def test_bundle_is_not_overwritten_unless_told(bundle):
    loaded = load_bundle(bundle, graph=GRAPH)
    arguments = {
        "graph": GRAPH,
        "training": loaded.contract.training,
        "ensemble": loaded.ensemble,
        "members": (),
        "canary_x": loaded.contract.canary.x.array("float32", "canary"),
    }
    with pytest.raises(UsageError, match="something here already"):
        write_bundle(bundle, **arguments)
    write_bundle(bundle, **arguments, overwrite=True)
    assert read_contract(bundle).members == ()
    assert [path.name for path in bundle.parent.iterdir()] == ["model"], "nothing temporary is left"


def _write_again(path, loaded):
    write_bundle(
        path,
        graph=GRAPH,
        training=loaded.contract.training,
        ensemble=loaded.ensemble,
        members=(),
        canary_x=loaded.contract.canary.x.array("float32", "canary"),
        overwrite=True,
    )


def test_bundle_behind_a_link_is_written_where_the_link_points(bundle):
    """The link became a folder, and the training then ended with an error."""
    loaded = load_bundle(bundle, graph=GRAPH)
    link = bundle.parent / "current"
    link.symlink_to(bundle.name)
    _write_again(link, loaded)
    assert link.is_symlink()
    assert read_contract(bundle).members == ()
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["current", "model"]


def test_directory_that_is_no_bundle_is_never_overwritten(bundle, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no bundle"):
        train(FakeSource(), quick_config(), tmp_path / "papers", device="cpu", overwrite=True)
    assert (tmp_path / "papers" / "thesis.txt").exists()


def test_failure_while_writing_leaves_the_old_bundle(bundle, monkeypatch):
    loaded = load_bundle(bundle, graph=GRAPH)
    before = sorted(path.read_bytes() for path in bundle.rglob("*") if path.is_file())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        _write_again(bundle, loaded)
    assert sorted(path.read_bytes() for path in bundle.rglob("*") if path.is_file()) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["model"]


def test_live_path_imports_neither_xgboost_nor_scipy_nor_sklearn(made):
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from gpuscalp.bundle import load_bundle\n"
        "bundle = load_bundle(Path(sys.argv[1]), graph=None)\n"
        "bundle.ensemble.predict(np.zeros((3, 6), np.float32))\n"
        # Numba itself loads scipy.linalg, to look for a BLAS, when it runs its first function.
        "heavy = {'xgboost', 'sklearn', 'matplotlib', 'pandas', 'pyarrow', 'scipy.optimize', 'scipy.stats'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bundle_says_how_the_columns_of_its_training_rows_are_distributed(made):
    found = load_bundle(made, graph=GRAPH).reference.trained
    assert found.edges.shape == (len(NAMES), 9)
    assert found.shares.sum(axis=1) == pytest.approx([1.0] * len(NAMES))
    # The market's rows, thinned to the stride, up to where labels end: the same tenths as theirs.
    rows = np.concatenate([chunk.features.transpose(0, 2, 1).reshape(-1, len(NAMES)).copy()
                           for chunk in FakeSource(frame_count=1_500).chunks()])  # fmt: skip
    tenths = np.nanquantile(rows, np.arange(1, 10) / 10, axis=0).T
    assert found.edges == pytest.approx(tenths, abs=0.25 * float(np.nanstd(rows)))


def test_bundle_of_an_earlier_version_is_refused(bundle):
    """Its contract held the tenths, which now lie in reference.npz."""
    path = bundle / "contract.json"
    plain = json.loads(path.read_bytes())
    block = {"dtype": "<f4", "shape": [0], "data": ""}
    path.write_text(json.dumps(plain | {"format": 1, "distribution": {"edges": block, "shares": block}}))
    error = refusal(bundle)
    assert (error.what, error.value) == ("this version reads bundles of format 2", 1)
    assert error.fix == "train it again"


def test_bundle_that_no_training_made_says_nothing_of_its_rows(bundle):
    _write_again(bundle, load_bundle(bundle, graph=GRAPH))
    contract = read_contract(bundle)
    assert b"reference" not in encode(contract)
    assert contract.training.tried == 1
    assert contract.intact


@pytest.mark.parametrize("name", ["x", "edges", "shares"])
def test_reference_of_other_columns_is_refused(bundle, name):
    path = bundle / "reference.npz"
    with np.load(path) as found:
        arrays = dict(found)
    for changed, what in (
        (arrays[name][:, :1], "of other columns"),
        (np.array(1), "of other columns"),
        (None, "missing"),
    ):
        data = packed({key: value for key, value in (arrays | {name: changed}).items() if value is not None})
        path.write_bytes(data)
        rewrite(bundle, seal=True, reference=file_spec(path.name, data))
        assert what in refusal(bundle).what


def test_arrays_are_no_larger_than_the_file_that_holds_them() -> None:
    """1 MB of somebody else's bundle was unpacked to 1 GB before anything was compared."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, left=np.zeros(1 << 23))
    assert len(buffer.getvalue()) < 1 << 17
    tracemalloc.start()
    try:
        with pytest.raises(MemberError, match="compressed"):
            unpacked(buffer.getvalue(), Path("forest.npz"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    arrays = {"left": np.arange(5), "right": np.zeros((2, 3))}
    assert {name: found.tolist() for name, found in unpacked(packed(arrays), Path("f")).items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
