"""Compiled code is kept where it is looked for, or refused in words."""

from __future__ import annotations

import shutil
from importlib.util import module_from_spec, spec_from_file_location

import numba
import pytest

from gpuscalp.errors import GpuscalpError
from gpuscalp.ops import _numba


@pytest.fixture
def source(tmp_path):
    """A file that a function comes from; Numba looks for one."""
    path = tmp_path / "source" / "numbers.py"
    path.parent.mkdir()
    path.write_text("def number(x):\n    return x\n", encoding="utf-8")
    return path


def number_of(source):
    spec = spec_from_file_location(source.stem, source)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.number


@pytest.mark.parametrize("decorator", [_numba.jit, _numba.bare, _numba.aside])
def test_cache_that_cannot_be_is_refused_with_the_way_out(tmp_path, source, monkeypatch, decorator):
    """It was an error of Numba's with its traceback; or none, where the sources could be written to: what it
    keeps beside them Numba goes on using when a callee in another file has changed."""
    place = tmp_path / "cache"
    place.touch()
    monkeypatch.setattr(_numba, "CACHE_FOLDER", place)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(place))
    with pytest.raises(GpuscalpError, match="cannot be kept") as refused:
        decorator(number_of(source))
    assert refused.value.where == str(place)
    assert "NUMBA_CACHE_DIR" in refused.value.fix


def test_source_that_has_no_place_at_all_is_refused(tmp_path, source, monkeypatch):
    place = tmp_path / "cache"
    place.touch()
    monkeypatch.setattr(_numba, "CACHE_FOLDER", place)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(place))
    function = number_of(source)
    shutil.rmtree(source.parent)
    with pytest.raises(GpuscalpError, match="cannot be kept"):
        _numba.jit(function)
