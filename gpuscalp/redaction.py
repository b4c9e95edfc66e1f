"""Where secrets are taken out of whatever is shown or written down.

Owns: what counts as a secret, by its place (a password in a URL, a signature, a token of a messenger) and by
its value (keys that the environment holds, or that somebody has named by ``keep``). Errors, logs, reports,
metrics and every command's output pass through ``redact``. Never: stores a secret, or lets one go on.

Known values are of the process and not of one part of it: a key that one part reads may stand in an error
that another one raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final, NamedTuple

HIDDEN: Final = "***"
# A shorter value would be found in ordinary words. Keys of exchanges have 64 characters, tokens 30 and more.
LENGTH_MIN: Final = 8

# Also at the end of a longer word, as in PGPASSWORD; KEY and DSN end too many others, such as MONKEY.
_SECRET_NAME: Final = re.compile(
    r"(?:API_?KEY|SECRET(?:KEY)?|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|WEBHOOK|NOTIFY(?=_URLS?$)"
    r"|(?:^|_)(?:KEY|DSN))"
    r"(?:[_0-9]|$|S$|_?URLS?$)",
    re.IGNORECASE,
)
# A word or a number that may stand anywhere without being the secret: keys and tokens have letters and
# digits, or more letters than a name.
_ORDINARY: Final = re.compile(r"[A-Za-z_]{1,20}|[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?")
# What ends in a letter or a digit, and is no part of the word behind it: \n, \x0a, \u000a, %0A, %250A.
_HEX: Final = "[0-9a-fA-F]"
_ESCAPE: Final = (
    rf"(?<=\\[abfnrtv])|(?<=\\x{_HEX}{{2}})|(?<=\\u{_HEX}{{4}})|(?<=%{_HEX}{{2}})|(?<=%25{_HEX}{{2}})"
)
# A string of JSON or of Prometheus' format; a colon behind it makes it the key of an object.
_STRING: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"(\s*:)?')
# Characters that do not end a word in text, in JSON and in HTML.
_WORD: Final = r"[^\s\"'<>\\&,;)\]}]"
# As it stands in JSON, in JSON within a string, and in HTML.
_QUOTE: Final = r"\\*(?:[\"']|&quot;|&#34;|&#39;|&#x27;)"
_NAMES: Final = (
    r"(?:signature|listen_?key|api_?key|api_?secret|secret(?:_?key)?|(?:access_?|auth_?)?token|password|passwd"
    r"|passphrase)"
)
_MESSENGERS: Final = (
    r"(?:tgram|slack|discord|msteams|gchat|matrixs?|mailtos?|ntfys?|gotifys?|pover|jsons?|forms?|xmls?)"
)
_WEBHOOKS: Final = (
    r"(?:hooks\.slack\.com/(?:services|workflows|triggers)/|(?:[a-z]+\.)?discord(?:app)?\.com/api/webhooks/"
    r"|[a-z0-9.-]+\.webhook\.office\.com/|chat\.googleapis\.com/v1/spaces/)"
)
_NEW: Final = r"(?!\*\*\*)"  # not what was hidden before: to redact twice changes nothing


class _Rule(NamedTuple):
    """A form of secrets. It is looked for only in texts that have one of ``signs``, in small letters: that
    is what keeps a status of many kilobytes cheap."""

    signs: tuple[str, ...]
    pattern: re.Pattern[str]


def _rule(signs: Sequence[str], pattern: str) -> _Rule:
    return _Rule(tuple(signs), re.compile(pattern, re.IGNORECASE))


# What ``keep`` matches stays in its place.
_RULES: Final = (
    # scheme://user:password@host, and the user alone where it is a token
    _rule(("://",), rf"(?P<keep>\b[a-z][a-z0-9+.-]*://){_NEW}[^\s/?#\"'<>@\\]+(?=@)"),
    # ?signature=… &listenKey=… , also in words
    _rule(("key", "secret", "token", "pass", "signature"), rf"(?P<keep>\b{_NAMES}(?:=|%3D)){_NEW}{_WORD}+"),
    # "listenKey": "…", also inside of a string
    _rule(
        ("key", "secret", "token", "pass", "signature"),
        rf"(?P<keep>{_QUOTE}{_NAMES}{_QUOTE}\s*:\s*{_QUOTE}){_NEW}[^\"'\\&]+",
    ),
    # Headers
    _rule(
        ("x-mbx-apikey", "authorization"),
        r"(?P<keep>\b(?:X-MBX-APIKEY|Authorization)\\?[\"']?\s*[:=]\s*\\?[\"']?(?:(?:Bearer|Basic)\s+)?)"
        r"(?!\*\*\*|(?:Bearer|Basic)\s+\*\*\*)" r"[^\s\"'\\,}]+",
    ),
    # A listen key in the path of a private stream: no name of a stream is so long
    _rule(("/ws/", "/private/", "/stream/"), r"(?P<keep>/(?:ws|private|stream)/)[a-z0-9]{40,}"),
    # Telegram's 123456789:AA… , also behind /bot
    _rule((":",), r"(?P<keep>)(?:(?<=bot)|\b)\d{6,12}:[a-z0-9_-]{30,}"),
    _rule(("xox",), r"(?P<keep>)\bxox[a-z]-[a-z0-9-]{8,}"),
    _rule(("http",), rf"(?P<keep>https?://{_WEBHOOKS}){_NEW}{_WORD}+"),
    # URLs of notification libraries have their tokens as host and path: tgram://token/chat
    _rule(("://",), rf"(?P<keep>\b{_MESSENGERS}://){_NEW}{_WORD}+"),
)  # fmt: skip
_BOT: Final = _RULES[5]
_SHOWN: Final = rf"\g<keep>{HIDDEN}"
# A cheap look before the rule of Telegram, whose beginning is any number.
_TELEGRAM: Final = re.compile(r":[A-Za-z0-9_-]{30}")

_kept: tuple[str, ...] = ()


def keep(values: Iterable[str]) -> None:
    """Take these values out of everything from now on, in the forms in which they may be written.

    Values of fewer than ``LENGTH_MIN`` characters are left alone: they would be found in ordinary words.
    """
    global _kept
    import json  # here, as the rest: every command pays for what stands at the top
    from urllib.parse import quote, quote_plus

    found = set(_kept)
    for value in _parts(values):
        in_html = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        # As it is, as Python shows it in a list, and both of them as JSON writes them.
        for text in (value, repr(value)[1:-1]):
            found.update((text, json.dumps(text)[1:-1]))
        found.add(in_html)
        found.update((quote(value, safe=""), quote(value), quote_plus(value)))
        for double, single in (("&quot;", "&#x27;"), ("&#34;", "&#39;")):
            found.add(in_html.replace('"', double).replace("'", single))
    # The longest first: a value may be the beginning of another one.
    _kept = tuple(sorted(found, key=len, reverse=True))


def _parts(values: Iterable[str]) -> Iterator[str]:
    """Give values that are long enough, and the lines of each: whoever shows a key of several lines (PEM) may
    break them elsewhere, and a value that comes from a file may end with a line's end that nobody shows."""
    for value in values:
        lines = (line.strip() for line in value.splitlines())
        for part in (value, *(line for line in lines if not line.startswith("-----"))):  # PEM's frame
            if len(part) >= LENGTH_MIN:
                yield part


def keep_environment(env: Mapping[str, str]) -> None:
    """Keep the values of variables with the name of a secret, and passwords in URLs such as a proxy's."""
    found = [value for name, value in env.items() if _SECRET_NAME.search(name)]
    keep([*found, *(form for value in env.values() for form in _in_urls(value))])


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a process that this one starts: without variables that bear a secret, by
    their name or in a URL.

    What computes needs no keys. Whatever shows the environment of a process, such as a dump of its memory,
    has them then for the session's own alone.
    """
    return {name: value for name, value in env.items() if not (_SECRET_NAME.search(name) or _in_urls(value))}


def redact(text: str, *, encoded: bool = False) -> str:
    """Return ``text`` without secrets; what has none comes back as it is.

    Fit for plain words, JSON and HTML: what is put in needs no escape, and no quotation mark is taken out.
    A known value that is an ordinary word or number goes where it stands alone, not within a longer one.

    Parameters
    ----------
    encoded : this is JSON, or metrics in Prometheus' format, and has to stay so: names, keys and numbers are
        the program's own, and ordinary words and numbers are looked for in its strings only
    """
    for value in _kept:
        if value in text:
            if not _ORDINARY.fullmatch(value):
                text = text.replace(value, HIDDEN)
            elif encoded:
                text = _STRING.sub(partial(_in_string, value), text)
            else:
                text = _alone(value).sub(HIDDEN, text)
    lowered = text.lower()
    for rule in _RULES:
        if any(sign in lowered for sign in rule.signs) and (rule is not _BOT or _TELEGRAM.search(text)):
            text = rule.pattern.sub(_SHOWN, text)
    return text


def has_secret(text: str) -> bool:
    """Whether ``redact`` would take something out."""
    return redact(text) != text


def ordinary_names(env: Mapping[str, str]) -> list[str]:
    """Return the variables with the name of a secret whose value is an ordinary word or number."""
    return [
        name
        for name, value in env.items()
        if _SECRET_NAME.search(name) and len(value) >= LENGTH_MIN and _ORDINARY.fullmatch(value)
    ]


def _in_string(value: str, found: re.Match[str]) -> str:
    return found[0] if found[1] or value not in found[0] else _alone(value).sub(HIDDEN, found[0])


@lru_cache(maxsize=64)
def _alone(value: str) -> re.Pattern[str]:
    """Return what finds an ordinary word, or number, that is no part of a longer one."""
    if value[-1].isdigit() or value[-1] == ".":
        before, behind = r"(?<![0-9])(?<![0-9]\.)", r"(?![0-9]|\.[0-9])"
    else:
        before, behind = r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9_])"
    return re.compile(rf"(?:{before}|{_ESCAPE}){re.escape(value)}{behind}")


def _in_urls(value: str) -> list[str]:
    """Return users and passwords in the URLs of a value."""
    if "://" not in value or "@" not in value:
        return []
    return [form for word in value.split() for form in _userinfo(word)]


def _userinfo(url: str) -> list[str]:
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(url)
        # As it stands there, and as its reader uses it: p%40ss and p@ss.
        return [form for word in (parts.username, parts.password) if word for form in (word, unquote(word))]
    except ValueError:  # no URL after all
        return []
