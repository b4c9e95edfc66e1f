"""What was done to the models of a registry: one line for each act, and what follows from all of them.

    HISTORY = one JSON object a line; each holds the SHA-256 of the line before it

Owns: the lines, their order, the torn end that a killed writer leaves, and the state that they add up to.
Aliases and pins are stored nowhere else: to append a line is to move a pointer, and there is nothing that
could disagree with it. Never: looks at a bundle; asks whether an act is allowed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from gpuscalp.contract import Sha256
from gpuscalp.errors import UNREADABLE, ModelError
from gpuscalp.files import sync_folder

Action = Literal["add", "promote", "rollback", "pin", "unpin", "use", "prune"]
Alias = Literal["champion", "candidate", "shadow"]
ALIASES: Final[tuple[Alias, ...]] = ("champion", "candidate", "shadow")

_BEFORE_THE_FIRST: Final = "0" * 64
_DIGEST: Final = re.compile("[0-9a-f]{64}")


class Act(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One act.

    ``old`` and ``new`` are digests, written as ``from`` and ``to``: of an alias, of what was added, pinned or
    used (``to``), of what lost its pin or was removed (``from``). ``session`` is the directory of a session
    that copied ``to``. ``before`` is the SHA-256 of the line before.
    """

    sequence: int
    time_ns: int
    who: str
    action: Action
    before: Sha256
    why: str = ""
    alias: Alias | None = None
    old: Sha256 | None = msgspec.field(name="from", default=None)
    new: Sha256 | None = msgspec.field(name="to", default=None)
    session: str | None = None


@dataclass(slots=True)
class State:
    """What the acts add up to.

    Attributes
    ----------
    stacks : by alias, the digests that it was promoted to, the present one last; a rollback takes one off
    pinned : digests that ``prune`` leaves alone
    added : the newest act that added a digest, while it was not removed
    sessions : by directory and digest, who uses which models
    """

    stacks: dict[Alias, list[str]] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)
    added: dict[str, Act] = field(default_factory=dict)
    sessions: dict[tuple[str, str], Act] = field(default_factory=dict)

    def current(self, alias: Alias) -> str | None:
        """Return the digest that an alias points to."""
        stack = self.stacks.get(alias)
        return stack[-1] if stack else None

    def earlier(self, alias: Alias) -> str | None:
        """Return the digest that a rollback of an alias goes to."""
        stack = self.stacks.get(alias, [])
        return stack[-2] if len(stack) > 1 else None

    def aliases_of(self, digest: str) -> list[Alias]:
        return [alias for alias in ALIASES if self.current(alias) == digest]

    def apply(self, act: Act) -> None:
        """Take one more act into account."""
        if act.action == "promote" and act.alias and act.new:
            self.stacks.setdefault(act.alias, []).append(act.new)
        elif act.action == "rollback" and act.alias:
            self.stacks[act.alias].pop()
        elif act.action == "pin" and act.new:
            self.pinned.add(act.new)
        elif act.action == "unpin" and act.old:
            self.pinned.discard(act.old)
        elif act.action == "add" and act.new:
            self.added[act.new] = act
        elif act.action == "use" and act.session and act.new:
            self.sessions[act.session, act.new] = act
        elif act.action == "prune" and act.old:
            self.added.pop(act.old, None)


@dataclass(frozen=True, slots=True)
class History:
    """The whole lines of a file.

    Attributes
    ----------
    acts : in their order
    last : SHA-256 of the last line
    whole_bytes : length of the whole lines; what follows was being written when its writer died, or still is
    """

    acts: tuple[Act, ...]
    last: str
    whole_bytes: int

    def state(self) -> State:
        return state_of(self.acts)


def is_digest(text: str) -> bool:
    """Say whether this is a digest, written as the history and the names of bundles have them."""
    return _DIGEST.fullmatch(text) is not None


def state_of(acts: Iterable[Act]) -> State:
    """Return what acts add up to."""
    state = State()
    for act in acts:
        state.apply(act)
    return state


def read_history(path: Path) -> History:
    """Read a history, also while somebody appends to it; none is an empty one.

    Raises
    ------
    ModelError
        a line was changed, taken out or put in, or is of a later version
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    whole = data.rfind(b"\n") + 1
    acts, last = [], _BEFORE_THE_FIRST
    promoted: Counter[Alias | None] = Counter()
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            act = msgspec.json.decode(line, type=Act)
        except UNREADABLE as error:
            raise _altered(path, number, str(error)) from None
        if act.before != last or act.sequence != number:
            raise _altered(path, number, "it does not follow from the line before")
        promoted[act.alias] += (act.action == "promote" and act.new is not None) - (act.action == "rollback")
        if promoted[act.alias] < 0:
            raise _altered(path, number, "it takes back what was never promoted")
        acts.append(act)
        last = hashlib.sha256(line).hexdigest()
    return History(tuple(acts), last, whole)


def append(path: Path, history: History, act: Act) -> History:
    """Append one act, on the disk when this returns. To be called by the one writer only.

    A torn end is cut off before. Where the disk refuses, the file is left as it was, and so it is where no
    reader would take the act: one such line, and the whole registry could not be read any more.

    Returns
    -------
    History, with the act

    Raises
    ------
    msgspec.ValidationError    a part of the act is not what it has to be
    """
    line = msgspec.json.encode(act) + b"\n"
    msgspec.json.decode(line, type=Act)  # types are checked on decoding only
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(file).st_size != history.whole_bytes:
            os.ftruncate(file, history.whole_bytes)
        os.lseek(file, history.whole_bytes, os.SEEK_SET)
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, history.whole_bytes)
            raise
    finally:
        os.close(file)
    if not history.acts:  # the file is new: its name has to survive as well
        sync_folder(path.parent)
    return History(
        (*history.acts, act), hashlib.sha256(line[:-1]).hexdigest(), history.whole_bytes + len(line)
    )


def _altered(path: Path, line: int, reason: str) -> ModelError:
    return ModelError(
        "the history of the registry was altered, or is of a later version",
        where=f"{path}, line {line}",
        value=reason,
        fix="restore the file from a backup; bundles can still be named by their paths",
    )
