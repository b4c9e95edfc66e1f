"""What ends a process when its parent is gone.

Owns: the one way, for processes that may be deep in native code. Never: ends anything else.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal


def end_with(pipe: int) -> None:
    """Have the kernel end this process when the other end of a pipe closes: when its parent is gone.

    A thread that reads would do where Python runs; a process that waits for its device, or computes without
    letting go of the interpreter, does not read. The signal is SIGIO, whose default is to end the process,
    whatever it is doing.

    Parameters
    ----------
    pipe : descriptor of the end that reads; nothing is written to the other one any more
    """
    # Whoever started the parent may have ignored or blocked it, and both are inherited.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if poll.poll(0):  # it had closed before
        os._exit(0)
