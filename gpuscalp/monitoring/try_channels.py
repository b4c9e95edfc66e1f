"""A test message to everybody whom a session would tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuscalp.errors import ConfigError
from gpuscalp.monitoring.alarms import Message
from gpuscalp.monitoring.channel import FILE_VARIABLE, URLS_VARIABLE, open_channels, read_urls

_MESSAGE = Message(
    "gpuscalp: a test", "This is a test. If a session had something to tell, it would arrive here.", "info"
)


def try_channels(environment: Mapping[str, str]) -> dict[str, Any]:
    """Send a test message over every channel and return what became of it.

    Returns
    -------
    dict
        ``channels``: ``service`` and ``failure`` (None where it was delivered) of each; ``failed``: how many

    Raises
    ------
    ConfigError    nobody is named, or as ``read_urls`` and ``open_channels``
    """
    channels = open_channels(read_urls(environment))
    if not channels:
        raise ConfigError(
            "there is nobody to notify",
            where=f"{URLS_VARIABLE}, {FILE_VARIABLE}",
            fix="set one of them (docs/alerts.md)",
        )
    found = [{"service": each.service, "failure": each.send(_MESSAGE)} for each in channels]
    return {"channels": found, "failed": sum(each["failure"] is not None for each in found)}
