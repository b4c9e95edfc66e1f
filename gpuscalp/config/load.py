"""From files, environment and flags to frozen structs. Unknown keys and values out of range are errors.

Later sources win: built-in defaults < file < environment (``GPUSCALP__SECTION__KEY``) < flags.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct

from gpuscalp.config.trading import OrdersConfig
from gpuscalp.errors import UNREADABLE, ConfigError
from gpuscalp.redaction import has_secret, keep_environment

ENV_PREFIX: Final = "GPUSCALP__"
T = TypeVar("T", bound=Struct)


def load(
    kind: type[T],
    path: Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> T:
    """Decode one configuration from its sources.

    Parameters
    ----------
    kind : the struct to decode into
    path : TOML file; None takes the defaults
    env : environment to read ``GPUSCALP__SECTION__KEY`` from; values are TOML literals, else strings
    overrides : dotted key → value, from flags; None values are ignored

    Raises
    ------
    ConfigError
        the file is missing or not TOML, a key is unknown (the nearest known key is named), a value is of the
        wrong type or out of range, or holds a secret: configurations are copied into every session; or
        ``orders.then`` would have no effect
    """
    keep_environment(env or {})
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                "no such configuration file", where=str(path), fix="correct --config, or leave it out"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"cannot read the configuration: {error.strerror}",
                where=str(path),
                fix="name a readable file",
            ) from None
        except UNREADABLE as error:
            raise ConfigError(
                f"not a TOML file: {error}", where=str(path), fix="gpuscalp config init writes an example"
            ) from None
    sources = [] if path is None else [str(path)]
    for name, text in (env or {}).items():
        if name.startswith(ENV_PREFIX):
            sources.append(name)
            _assign(data, _keys_of(name), _literal(text), where=f"environment {name}")
    for dotted, value in (overrides or {}).items():
        if value is not None:
            _assign(data, dotted.split("."), value, where=f"option {dotted}")
    where = ", ".join(sources) or "configuration"
    _refuse_secrets(data, where, ())
    _check_keys(data, kind, where, ())
    try:
        found = msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        what, _, at = str(error).partition(" - at ")
        keys = re.findall(r"\w+", at)  # `$.grid.frame_ms` or `$.symbols[...]`
        value = _found(data, keys)
        fix = "correct the value: gpuscalp config init writes a file that explains the keys"
        if value == math.inf:
            fix = 'give a number; what docs/risk.md marks with * is switched off by "off"'
        raise ConfigError(
            f"{'.'.join(keys) or 'the configuration'}: {what[0].lower()}{what[1:]}",
            where=where,
            value=value,
            fix=fix,
        ) from None
    _check_orders(found, where)
    return found


def load_given(
    kind: type[T],
    config: Path | str | T | None,
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, object] | None,
) -> T:
    """Return a configuration that is given whole, or ``load`` it: from a file, or the defaults.

    Raises
    ------
    ConfigError
        as ``load``; or it is given whole, and overrides as well, which would be lost
    """
    if not isinstance(config, kind):
        file = None if config is None else Path(config)  # type: ignore[arg-type]
        return load(kind, file, env=env, overrides=overrides)
    given = sorted(dotted for dotted, value in (overrides or {}).items() if value is not None)
    if given:
        raise ConfigError(
            "a whole configuration takes no overrides",
            where="overrides",
            value=", ".join(given),
            fix="set them in the configuration, or give its file",
        )
    return config


def load_named(kind: type[T], path: Path | None, *, env: Mapping[str, str]) -> T | None:
    """Return what a file and the environment say; None where no file is named.

    For what goes on with a configuration of its own then, which the environment cannot overrule.

    Raises
    ------
    ConfigError
        as ``load``; or no file is named, and the environment has values for one
    """
    if path is not None:
        return load(kind, path, env=env)
    given = sorted(name for name in env if name.startswith(ENV_PREFIX))
    if given:
        raise ConfigError(
            "the environment overrules a configuration, and none is named",
            where="--config",
            value=", ".join(given),
            fix="add --config FILE, or unset them",
        )
    return None


def variable_of(dotted: str, env: Mapping[str, str]) -> str | None:
    """Return the variable that gives a key its value, or the section that it is in; None if none does."""
    parts = dotted.split(".")
    for name in env:
        if name.startswith(ENV_PREFIX):
            keys = _keys_of(name)
            if keys == parts[: len(keys)]:
                return name
    return None


def _keys_of(name: str) -> list[str]:
    return name.removeprefix(ENV_PREFIX).lower().split("__")


def _check_orders(config: Struct, where: str) -> None:
    """Refuse a second step of entries that have no first one.

    Here and not where orders are made: a session that was begun with both can still be repeated.
    """
    for name in config.__struct_fields__:
        part = getattr(config, name)
        if isinstance(part, OrdersConfig) and (part.entry, part.then) == ("taker", "take"):
            raise ConfigError(
                "orders.then takes what a resting entry has not got, and no entry rests",
                where=where,
                value='then = "take" with entry = "taker"',
                fix='set orders.entry to "post_only", or leave out orders.then',
            )
        if isinstance(part, Struct):
            _check_orders(part, where)


def _found(data: object, keys: list[str]) -> object:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            break
        data = data[key]
    return data


def to_dict(config: Struct) -> dict[str, Any]:
    """Return the resolved configuration as plain data, for freezing into a run directory."""
    return cast(dict[str, Any], msgspec.to_builtins(config))


def flat_dict(config: Struct) -> dict[str, Any]:
    """Return the resolved configuration by dotted key, as ``load`` takes it as overrides."""
    return dict(flat(to_dict(config)))


def flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their dotted keys."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _assign(data: dict[str, Any], keys: list[str], value: object, *, where: str) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{key} is a value, not a section", where=where, value=value)
    data[keys[-1]] = value


def _literal(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except UNREADABLE:
        return text


def _refuse_secrets(value: object, where: str, path: tuple[str, ...]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_secrets(inner, where, (*path, str(key)))
    elif isinstance(value, list):
        for inner in value:
            _refuse_secrets(inner, where, path)
    elif isinstance(value, str) and has_secret(value):
        raise ConfigError(
            f"{'.'.join(path)}: a secret in the configuration, which is copied into every session",
            where=where,
            value=value,  # without the secret, as every error
            fix="take it out; keys come from the environment alone (docs/logs.md#secrets)",
        )


def _check_keys(data: Mapping[str, Any], kind: type[Struct], where: str, path: tuple[str, ...]) -> None:
    """Refuse unknown keys here rather than in msgspec, so that the nearest known key can be named."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            name = ".".join((*path, key))
            guess = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(fields)}"
            raise ConfigError("unknown key", where=where, value=name, fix=guess)
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, Struct) and isinstance(value, dict):
            _check_keys(value, inner, where, (*path, key))
