"""What becomes of SIGTERM, which Ray takes over when it begins. A Ray that does only that is made up."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import pytest

from gpuscalp import ray_cluster


@pytest.mark.parametrize("meanwhile", [False, True], ids=["afterwards", "while Ray begins"])
def test_sigterm_interrupts_as_before(monkeypatch, meanwhile):
    """It left with Ray's own code, which is in no table, and told nobody how to go on."""

    def take_over(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        if meanwhile:
            signal.raise_signal(signal.SIGTERM)

    ends = []
    ray = SimpleNamespace(is_initialized=lambda: False, init=take_over, shutdown=lambda: ends.append("Ray"))
    monkeypatch.setattr(ray_cluster, "import_ray", lambda: ray)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), ray_cluster.connected():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ends == ["Ray"]
