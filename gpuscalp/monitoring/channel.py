"""Ways out to people: Telegram, Slack, mail, webhooks and a hundred more, by the library apprise.

Owns: where their URLs come from, and that nothing of them is ever shown. URLs hold tokens and passwords: they
are read from the environment or from a file that only its owner may read, and from nowhere else.
"""

from __future__ import annotations

import logging
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, final

from gpuscalp.errors import ConfigError
from gpuscalp.monitoring.alarms import Message
from gpuscalp.redaction import keep

URLS_VARIABLE: Final = "GPUSCALP_NOTIFY_URLS"
FILE_VARIABLE: Final = "GPUSCALP_NOTIFY_FILE"

_LOGGERS: Final = tuple(
    logging.getLogger(name)
    for name in ("apprise", "oauthlib", "requests", "requests_oauthlib", "urllib3", "urllib3.connectionpool")
)
_REASON_MAX: Final = 200
_hearing: Final[dict[int, list[str]]] = {}  # by thread, while it sends


class Channel(Protocol):
    """One way out."""

    @property
    def service(self) -> str:
        """Its kind, such as ``Telegram``: from a fixed list, without anything secret."""

    def send(self, message: Message) -> str | None:
        """Deliver a message; return why that failed, or None. It returns within some seconds."""


def read_urls(environment: Mapping[str, str]) -> list[str]:
    """Return the URLs that somebody has set; [] where nobody wants to be told.

    Parameters
    ----------
    environment : ``GPUSCALP_NOTIFY_URLS``: URLs between blanks. ``GPUSCALP_NOTIFY_FILE``: a file with one in
        each line, ``#`` begins a comment; its mode has to be 0600 or 0400

    Raises
    ------
    ConfigError    the file cannot be read, is not UTF-8, or others may read it
    """
    urls = environment.get(URLS_VARIABLE, "").split()
    name = environment.get(FILE_VARIABLE, "")
    if name:
        urls += _from_file(name)
    keep(urls)  # out of everything that is shown or written
    return urls


def _from_file(name: str) -> list[str]:
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                "others may read the file with the URLs for notifications",
                where=FILE_VARIABLE,
                value=f"{path}, mode {stat.S_IMODE(mode):04o}",
                fix=f"chmod 600 {path}",
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"the file with the URLs for notifications cannot be read: {error.strerror}",
            where=FILE_VARIABLE,
            value=str(path),
            fix="correct the name, or unset the variable",
        ) from None
    except UnicodeDecodeError:  # it would show what could not be read
        raise ConfigError(
            "the file with the URLs for notifications is not UTF-8",
            where=FILE_VARIABLE,
            value=str(path),
            fix="save it as UTF-8, or unset the variable",
        ) from None
    written = (line.strip() for line in lines)
    return [line for line in written if line and not line.startswith("#")]


def open_channels(urls: Sequence[str]) -> list[Channel]:
    """Return a channel for each URL.

    Raises
    ------
    ConfigError    the library is not installed, or a URL is none that it knows
    """
    if not urls:
        return []
    try:
        import apprise
    except ImportError:
        raise ConfigError(
            "notifications need a package that is not installed",
            where="apprise",
            fix="install the extra notify (make setup EXTRAS=notify in a checkout), or unset "
            + f"{URLS_VARIABLE} and {FILE_VARIABLE}",
        ) from None
    channels: list[Channel] = []
    for number, url in enumerate(urls, start=1):
        # The first one loads all services, some of which need modules that Python will drop.
        with _heard(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            plugin = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if plugin is None:
            raise ConfigError(
                "a URL for notifications is none that apprise knows",
                where=f"{URLS_VARIABLE} or {FILE_VARIABLE}, number {number}",
                value=f"{url.partition('://')[0][:20]}://…" if "://" in url else None,
                fix="see the list of services of apprise; what follows :// is secret and not shown here",
            )
        channels.append(AppriseChannel(plugin, url))
    return channels


@final
class AppriseChannel:
    """One service.

    Parameters
    ----------
    plugin : of apprise
    url : that it was made from; only to keep its parts out of what is shown
    """

    def __init__(self, plugin: Any, url: str) -> None:
        self._plugin = plugin
        self._secret = sorted(
            {part for part in re.split(r"\W+", url.partition("://")[2]) if len(part) > 3}, key=len
        )[::-1]
        self.service = str(plugin.service_name)

    def send(self, message: Message) -> str | None:
        kind = {"critical": "failure", "warning": "warning", "info": "info"}[message.severity]
        with _heard() as heard:
            try:
                sent = self._plugin.notify(
                    body=message.body,
                    title=message.title,
                    notify_type="success" if message.resolved else kind,
                )
            except Exception as error:  # a plugin's defect is a message that was not delivered
                sent, heard[:] = False, [f"{type(error).__name__}: {error}"]
        if sent:
            return None
        return self._without_secrets(heard[-1] if heard else "no reason was given")

    def _without_secrets(self, text: str) -> str:
        for part in self._secret:
            text = re.sub(re.escape(part), "***", text, flags=re.IGNORECASE)
        return " ".join(text.split())[:_REASON_MAX]


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what apprise warns of in this thread, and keep it out of every log: it may name the URL.

    What lies below apprise writes whole URLs at DEBUG; a bot's token is a part of its URL.
    """
    for logger in _LOGGERS:
        logger.setLevel(logging.WARNING)
        logger.addFilter(_take)  # once; it stays
    thread = threading.get_ident()
    heard = _hearing[thread] = []
    try:
        yield heard
    finally:
        del _hearing[thread]


def _take(record: logging.LogRecord) -> bool:
    """Note what a thread that sends is told. While any of them does, nothing goes further."""
    heard = _hearing.get(threading.get_ident())
    if heard is not None:
        heard.append(record.getMessage())
    return not _hearing
