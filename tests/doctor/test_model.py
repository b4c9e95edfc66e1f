"""A bundle is loaded as a session would load it."""

from __future__ import annotations

import pytest

from gpuscalp.bundle import read_contract
from gpuscalp.doctor.model import check_expiry, check_model, symbols_of
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


@pytest.mark.parametrize(
    ("age_h", "limit", "status", "told"),
    [
        (100.0, 168.0, "ok", "expires in 68 h"),
        (150.0, 168.0, "warn", "expires in 18.0 h"),
        (168.5, 168.0, "warn", "has expired"),
        (9_999.0, "off", "ok", "do not expire"),
    ],
)
def test_a_model_near_the_end_of_its_time_is_a_warning(bundle, age_h, limit, status, told):
    until_ns = read_contract(bundle).training.trained_on.end_ns
    check = check_expiry(bundle, limit, now_ns=until_ns + round(age_h * 3_600 * 10**9))
    assert (check.status, told in check.what) == (status, True)


def test_without_a_model_nothing_expires():
    assert check_expiry(None, 168.0, now_ns=0).status == "skip"
