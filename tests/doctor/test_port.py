"""A port is free, taken, or not asked for."""

from __future__ import annotations

import socket

import pytest

from gpuscalp.doctor.port import check_port


@pytest.mark.parametrize("port", [None, 0])
def test_no_port_is_skipped(port):
    assert check_port(port).status == "skip"


def test_port_is_free_or_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = check_port(port)
        assert (taken.status, taken.code) == ("fail", 1)
        assert str(port) in taken.what
    assert check_port(port).status == "ok"
