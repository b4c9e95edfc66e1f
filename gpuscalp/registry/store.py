"""A folder of models by their digests, that aliases point into.

    REGISTRY/history.jsonl        every act; aliases and pins follow from it (gpuscalp.registry.history)
    REGISTRY/bundles/<digest>/    bundles, each whole or not there; never changed
    REGISTRY/lock                 held by the one process that writes

Owns: the folder, its lock, and that whatever moment a writer dies at, the next reader finds it whole. Readers
take no lock. What a dead writer left begins with ``.adding-`` or ``.removing-``; the next writer removes it.
Whatever else lies among the bundles and has no digest for a name is a stray: told of, never touched.
Never: decides whether a model is fit to be promoted (gpuscalp.registry.promotion).
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

from gpuscalp.bundle import CONTRACT_FILE, load_bundle, read_contract
from gpuscalp.errors import DeadlineError, ModelError, UsageError
from gpuscalp.files import sync_folder
from gpuscalp.locks import take_lock
from gpuscalp.redaction import redact
from gpuscalp.registry.history import (
    Act,
    Action,
    Alias,
    History,
    State,
    append,
    is_digest,
    read_history,
)
from gpuscalp.user import user_folder, user_name

HISTORY_FILE: Final = "history.jsonl"
BUNDLES: Final = "bundles"
WAIT_S: Final = 30.0

_MAY_NOT_WRITE: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_ADDING: Final = ".adding-"
_REMOVING: Final = ".removing-"


def registry_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return ``$GPUSCALP_REGISTRY``, else a folder below ``$XDG_DATA_HOME`` or ``~/.local/share``."""
    chosen = environ.get("GPUSCALP_REGISTRY")
    if chosen:
        return Path(chosen).expanduser()
    return user_folder("XDG_DATA_HOME", ".local/share", environ) / "models"


@final
class Registry:
    """One registry, to be read; ``writing`` gives a writer.

    Parameters
    ----------
    path : its folder; need not exist
    clock : ns UTC
    who : stands in the history beside what is done; None: the user and the host
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], int] = time.time_ns, who: str | None = None
    ) -> None:
        self.path = path
        self._clock = clock
        self._who = who

    @property
    def history_path(self) -> Path:
        return self.path / HISTORY_FILE

    def history(self) -> History:
        """Read what was done.

        Raises
        ------
        ModelError    it was altered
        """
        return read_history(self.history_path)

    def bundle_path(self, digest: str) -> Path:
        """Return where a bundle lies, or would lie."""
        return self.path / BUNDLES / digest

    def digests(self) -> list[str]:
        """Return what is there, sorted."""
        return [name for name in self._names() if is_digest(name)]

    def strays(self) -> list[str]:
        """Return the names among the bundles that are no digests, sorted: somebody else's."""
        return [name for name in self._names() if not is_digest(name) and not name.startswith(".")]

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in (self.path / BUNDLES).iterdir())
        except FileNotFoundError:
            return []

    def check_begun(self) -> None:
        """Refuse a folder in which nothing was ever done.

        Raises
        ------
        UsageError    there is no history
        """
        if not self.history_path.is_file():
            raise UsageError(
                "no registry here: there is no history",
                where=str(self.history_path),
                fix="--registry names the folder that has it; gpuscalp model add BUNDLE makes one",
            )

    @contextmanager
    def writing(self, *, wait_s: float = WAIT_S) -> Iterator[Writer]:
        """Be the one writer while the block runs.

        Raises
        ------
        DeadlineError
            another process was writing all the time
        """
        (self.path / BUNDLES).mkdir(parents=True, exist_ok=True)
        lock = take_lock(self.path / "lock", wait_s=wait_s)
        if lock is None:
            raise DeadlineError(
                "another process is writing to the registry",
                where=str(self.path),
                value=f"waited for {wait_s:g} s",
                fix="wait for it to end, then try again",
            )
        try:
            for prefix in (_ADDING, _REMOVING):
                for left in (self.path / BUNDLES).glob(f"{prefix}*"):
                    shutil.rmtree(left)
            yield Writer(self, clock=self._clock, who=self._who or _user())
        finally:
            os.close(lock)

    def check_writable(self) -> None:
        """Refuse to go on where no bundle can be added, before hours are spent on one.

        The folder is made; nothing else of it stays.

        Raises
        ------
        UsageError    the system refuses
        ModelError    the history was altered
        """
        try:
            with self.writing(wait_s=0):
                Path(tempfile.mkdtemp(prefix=_ADDING, dir=self.path / BUNDLES)).rmdir()
                with suppress(FileNotFoundError):  # it comes with the first act
                    os.close(os.open(self.history_path, os.O_RDWR | os.O_CLOEXEC))
        except DeadlineError:  # who writes now may have ended long before there is something to keep
            pass
        except OSError as error:
            raise UsageError(
                "the registry cannot be written",
                where=str(error.filename or self.path),
                value=error.strerror or str(error),
                fix="correct its permissions or its disk, or choose another folder"
                " (--registry; of a session: registry in [retraining])",
            ) from None


@final
class Writer:
    """What changes a registry, under its lock. Every method is one act, done whole or not at all."""

    def __init__(self, registry: Registry, *, clock: Callable[[], int], who: str) -> None:
        self.registry = registry
        self._clock = clock
        self._who = who
        self._history = registry.history()
        self.state: State = self._history.state()

    def add(self, source: Path, *, why: str = "") -> tuple[str, bool]:
        """Copy a bundle in, check the copy, and only then give it its name.

        One that is there already stays; where its files were damaged, they are mended from the source.

        Returns
        -------
        (digest, whether it is new)

        Raises
        ------
        UsageError
            there is nothing at the source
        ModelError, MemberError, CanaryError
            the source is no whole bundle
        """
        if not source.exists():
            raise UsageError("no bundle here", where=str(source), fix="gpuscalp train makes one")
        folder = self.registry.path / BUNDLES
        staged = Path(tempfile.mkdtemp(prefix=_ADDING, dir=folder))
        try:
            copy_bundle(source, staged)
            digest = load_bundle(staged, graph=None).contract.digest
            target = self.registry.bundle_path(digest)
            new = not target.exists()
            if new:
                staged.rename(target)
                sync_folder(folder)
            elif not _is_whole(target):
                _mend(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        if digest not in self.state.added:
            self._append("add", new=digest, why=why or str(source.resolve()))
        return digest, new

    def promote(self, alias: Alias, digest: str, *, why: str = "") -> None:
        """Point an alias to a bundle that is there, unchecked."""
        assert self.registry.bundle_path(digest).is_dir()
        self._append("promote", alias=alias, old=self.state.current(alias), new=digest, why=why)

    def rollback(self, alias: Alias, *, why: str = "") -> None:
        """Point an alias to where it pointed before, unchecked. It must have an earlier bundle."""
        earlier = self.state.earlier(alias)
        assert earlier is not None
        self._append("rollback", alias=alias, old=self.state.current(alias), new=earlier, why=why)

    def pin(self, digest: str, *, why: str = "") -> None:
        """Keep a bundle from ``prune``."""
        if digest not in self.state.pinned:
            self._append("pin", new=digest, why=why)

    def unpin(self, digest: str, *, why: str = "") -> None:
        """Take a pin away."""
        if digest in self.state.pinned:
            self._append("unpin", old=digest, why=why)

    def note_session(self, digest: str, session: Path) -> None:
        """Remember that a session uses a bundle."""
        self._append("use", new=digest, session=str(session.resolve()))

    def remove(self, digest: str) -> None:
        """Remove a bundle: out of sight in one step, then file by file."""
        target = self.registry.bundle_path(digest)
        self._append("prune", old=digest)
        gone = target.with_name(f"{_REMOVING}{digest}")
        target.rename(gone)
        sync_folder(target.parent)
        shutil.rmtree(gone)

    def _append(self, action: Action, *, why: str = "", **parts: Any) -> None:
        act = Act(
            sequence=len(self._history.acts) + 1,
            time_ns=self._clock(),
            who=self._who,
            action=action,
            before=self._history.last,
            why=redact(why),
            **parts,
        )
        self._history = append(self.registry.history_path, self._history, act)
        self.state.apply(act)


def note_session(bundle: Path, session: Path, *, now_ns: int) -> None:
    """Tell the registry that a bundle lies in, if it does, that a session uses it.

    The session has its own copy, so a registry that this user may only read is left alone.
    """
    path = bundle.resolve()
    home = path.parent.parent
    ours = path.parent.name == BUNDLES and is_digest(path.name) and (home / HISTORY_FILE).is_file()
    if not ours:
        return
    # Asked by doing it: whoever may write to the folder may still not write to files of others in it.
    try:
        with Registry(home, clock=lambda: now_ns).writing() as writer:
            writer.note_session(path.name, session)
    except OSError as error:
        if error.errno not in _MAY_NOT_WRITE:
            raise


def copy_bundle(source: Path, target: Path) -> None:
    """Copy the regular files of a bundle, onto the disk; nobody may write to the copies."""
    read_contract(source)
    target.chmod(0o755)
    for path in sorted(source.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as reader, copy.open("wb") as writer:
            shutil.copyfileobj(reader, writer)
            writer.flush()
            os.fsync(writer.fileno())
        copy.chmod(0o444)
    for folder in (target, *(each for each in target.rglob("*") if each.is_dir())):
        sync_folder(folder)


def _mend(whole: Path, damaged: Path) -> None:
    """Put whole files in the place of those with the same names, the contract last."""
    files = [path for path in whole.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda each: each.name == CONTRACT_FILE):
        target = damaged / path.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    sync_folder(damaged)


def _is_whole(path: Path) -> bool:
    try:
        load_bundle(path, graph=None)
    except ModelError:
        return False
    return True


def _user() -> str:
    return f"{user_name()}@{socket.gethostname()}"
