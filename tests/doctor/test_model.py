"""A bundle is loaded as a session would load it."""

from __future__ import annotations

import pytest

from gpuscalp.bundle import read_contract
from gpuscalp.doctor.model import check_model, symbols_of
from tests.doctor import bundle as made

SYMBOLS = ("AUSDT", "BUSDT")


@pytest.fixture
def bundle(tmp_path):
    return made.write(tmp_path / "model", SYMBOLS)


def test_good_bundle_passes_with_its_canary(bundle):
    check = check_model(bundle, device="cpu")
    assert (check.status, check.code) == ("ok", 0)
    assert check.value["canary_rows"] == 4
    assert check.value["digest"] == read_contract(bundle).digest
    assert symbols_of(bundle) == SYMBOLS


def test_altered_file_is_refused_with_code_8(bundle):
    data = bytearray((bundle / "forest.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "forest.npz").write_bytes(data)
    check = check_model(bundle, device="cpu")
    assert (check.status, check.code) == ("fail", 8)
    assert "forest.npz" in check.what
    assert check.fix


def test_bundle_for_other_columns_is_refused_with_code_8(bundle):
    text = (bundle / "contract.json").read_text()
    (bundle / "contract.json").write_text(text.replace(read_contract(bundle).graph_hash, "0" * 64))
    check = check_model(bundle, device="cpu")
    assert (check.status, check.code) == ("fail", 8)


def test_missing_bundle_is_refused_and_names_no_symbols(tmp_path):
    check = check_model(tmp_path / "nothing", device="cpu")
    assert (check.status, check.code) == ("fail", 8)
    assert check.fix == "gpuscalp train makes one"
    assert symbols_of(tmp_path / "nothing") == ()
