"""A stop is heard at once, remembered where it was let go, and handlers are put back."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import pytest

from gpuscalp.stop_signals import interrupt_if_stopped, stopped_as_interrupted

pytestmark = pytest.mark.usefixtures("hears_ctrl_c")

STOPS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", STOPS)
def test_stop_is_remembered_until_the_outermost_block_ends(number):
    """Ctrl-C was not, where a library had let it go."""
    before = [signal.getsignal(each) for each in STOPS]
    with stopped_as_interrupted():
        interrupt_if_stopped()
        with stopped_as_interrupted(), suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            interrupt_if_stopped()
    assert [signal.getsignal(each) for each in STOPS] == before
    with stopped_as_interrupted():
        interrupt_if_stopped()


@pytest.mark.parametrize("number", STOPS)
def test_stop_does_not_wait_for_a_coroutine(number):
    """Ctrl-C in a start that repeated its journal was taken when all of it was repeated: after minutes."""
    gone_on = []

    async def start():
        signal.raise_signal(number)
        gone_on.append("the whole journal")

    with pytest.raises(KeyboardInterrupt), stopped_as_interrupted(), stopped_as_interrupted():
        asyncio.run(start())
    assert not gone_on


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["in the background", "taken"])
def test_ctrl_c_that_somebody_has_taken_stays_his(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with stopped_as_interrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
