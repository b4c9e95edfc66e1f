"""The messages of a worker: whole, in order, and with an end."""

from __future__ import annotations

import os
from itertools import count

import pytest

from gpuscalp.worker.faults import Fault
from gpuscalp.worker.link import Answered, Canary, Failed, Frame, Link, Ready, Sync
from gpuscalp.worker.memory import SLOTS


def _pair() -> tuple[Link, Link]:
    ours, theirs = Link.pair()
    return ours, Link(theirs)


def test_messages_arrive_whole_and_in_order():
    ours, theirs = _pair()
    sent = [
        Sync((("ladder.rings", "<f4", (2, 3)), ("empty", "|u1", ()))),
        Frame(7, 64, 12, True, 1),
        Ready({"name": "a card", "memory_bytes": 1 << 36}),
        Answered(7, 99),
        Canary("ab" * 32),
        Failed(Fault.HANG, "x" * 3_000),
    ]
    for message in sent:
        ours.send(message)
    assert [theirs.receive()[0] for _ in sent] == sent
    assert theirs.receive() is None
    ours.close()
    theirs.close()


def test_a_descriptor_goes_with_its_message():
    ours, theirs = _pair()
    memory = os.memfd_create("test")
    os.write(memory, b"state")
    ours.send(Answered(1, 1))
    ours.send(Sync(()), descriptor=memory)
    os.close(memory)
    assert theirs.receive() == (Answered(1, 1), [])
    message, descriptors = theirs.receive()
    assert message == Sync(())
    assert os.pread(descriptors[0], 10, 0) == b"state"
    os.close(descriptors[0])
    ours.close()
    theirs.close()


def test_what_was_said_is_heard_before_the_end_is():
    ours, theirs = _pair()
    ours.send(Failed(Fault.OUT_OF_MEMORY, "no more"))
    ours.close()
    assert theirs.receive()[0] == Failed(Fault.OUT_OF_MEMORY, "no more")
    with pytest.raises(EOFError):
        theirs.receive()
    with pytest.raises(EOFError):
        theirs.send(Answered(1, 1))
    theirs.close()


def test_nobody_waits_for_one_who_does_not_read():
    ours, theirs = _pair()
    for index in range(SLOTS + 20):  # the frames that may wait, and some canaries, have room
        ours.send(Frame(index, 0, 0, False, 0))
    with pytest.raises(BlockingIOError):
        _send_for_ever(ours)
    ours.close()
    theirs.close()


def _send_for_ever(link: Link) -> None:
    for index in count():
        link.send(Frame(index, 0, 0, False, 0))
