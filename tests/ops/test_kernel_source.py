"""The reader of ``kernels/``: which place wins, and what is said when neither has the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuscalp.errors import DeviceError, KernelNotFoundError
from gpuscalp.ops import kernel_source


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package and an empty checkout under one folder."""
    monkeypatch.setattr(kernel_source, "_package_root", lambda: tmp_path / "site" / "gpuscalp")
    monkeypatch.setattr(kernel_source, "_checkout_root", lambda: tmp_path / "checkout")
    (tmp_path / "site" / "gpuscalp" / "_kernels").mkdir(parents=True)
    (tmp_path / "checkout" / "kernels").mkdir(parents=True)
    return tmp_path


def test_load_kernel_source_reads_the_checkout_when_the_package_has_none(places: Path) -> None:
    (places / "checkout" / "kernels" / "demo.cu").write_text("// ångström\n", encoding="utf-8")
    assert kernel_source.load_kernel_source("demo") == "// ångström\n"


def test_load_kernel_source_prefers_the_package(places: Path) -> None:
    (places / "checkout" / "kernels" / "demo.cu").write_text("checkout")
    (places / "site" / "gpuscalp" / "_kernels" / "demo.cu").write_text("package")
    assert kernel_source.load_kernel_source("demo") == "package"


def test_load_kernel_source_names_both_places_when_the_file_is_missing(places: Path) -> None:
    with pytest.raises(KernelNotFoundError) as caught:
        kernel_source.load_kernel_source("demo")
    message = str(caught.value)
    assert str(places / "site" / "gpuscalp" / "_kernels" / "demo.cu") in message
    assert str(places / "checkout" / "kernels" / "demo.cu") in message
    assert isinstance(caught.value, DeviceError)
    assert caught.value.exit_code == 6


def test_kernel_places_point_into_this_checkout() -> None:
    _, checkout = kernel_source.kernel_places("forest")
    assert Path(str(checkout)).parent == Path(__file__).resolve().parents[2] / "kernels"
