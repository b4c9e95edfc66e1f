"""MLflow's client, on a server or on a store of this machine.

Owns: where runs go, what MLflow is told before it is imported (nothing of its own goes to anybody, nothing to
stdout), and the one form in which its failures reach people. Never: knows what a run holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from gpuscalp.errors import ConfigError, TrackingError, UsageError
from gpuscalp.redaction import keep_environment, redact
from gpuscalp.user import user_folder

NAME: Final = "gpuscalp"

_DATABASE: Final = "mlflow.db"
_SQLITE: Final = "sqlite:///"
# What MLflow's queries and URIs give a meaning to.
_BARRED: Final = re.compile(r"[/:@'\"`%\\]")
_TOLD_MAX: Final = 400

_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for the answer of the command
    "MLFLOW_CONFIGURE_LOGGING": "false",  # its warnings take our way, without secrets
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# MLflow's own 7 attempts with 120 s each keep one who waits at a server that is down for minutes.
_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


@dataclass(frozen=True, slots=True)
class Target:
    """Where runs go.

    Attributes
    ----------
    uri : of a server, ``sqlite:///…``, or whatever else MLflow knows; may hold a password
    name : of the experiment, and of the registered model that its bundles are versions of
    """

    uri: str
    name: str

    @property
    def shown(self) -> str:
        """The URI without its password."""
        return redact(self.uri)

    @property
    def folder(self) -> Path | None:
        """Where the artefacts of a SQLite store lie: beside the file, wherever the command was run."""
        if not self.uri.startswith(_SQLITE):
            return None
        return Path(self.uri.removeprefix(_SQLITE).partition("?")[0]).absolute().parent


def target_of(
    uri: str | None = None, name: str | None = None, *, environ: Mapping[str, str] = os.environ
) -> Target:
    """Return where runs go, and make sure that MLflow is there; nothing is opened.

    Parameters
    ----------
    uri : None: ``$MLFLOW_TRACKING_URI``, else a SQLite file below ``$XDG_DATA_HOME`` or ``~/.local/share``
    name : None: ``$MLFLOW_EXPERIMENT_NAME``, else ``gpuscalp``

    Raises
    ------
    ConfigError    the extra is not installed
    UsageError     the name has characters that MLflow gives a meaning to
    """
    try:
        metadata.version("mlflow-skinny")
    except metadata.PackageNotFoundError:
        raise ConfigError(
            "MLflow is not installed",
            where="extra mlflow",
            fix="make setup EXTRAS=mlflow in the checkout (docs/install.md)",
        ) from None
    chosen = name or environ.get("MLFLOW_EXPERIMENT_NAME") or NAME
    if _BARRED.search(chosen):
        raise UsageError(
            "not a name that an experiment and a registered model can both have",
            where="--experiment",
            value=chosen,
            fix="letters, digits, spaces, - _ and .",
        )
    found = uri or environ.get("MLFLOW_TRACKING_URI") or _SQLITE + str(_default_folder(environ) / _DATABASE)
    keep_environment({"uri": found})
    return Target(found, chosen)


@contextmanager
def connected(target: Target) -> Iterator[Any]:
    """Yield an ``MlflowClient``; what MLflow raises in the block comes out as one of our errors.

    Sets variables of MLflow in the environment of this process: there is no other way to tell it.

    Raises
    ------
    TrackingError
        the server does not answer, refuses, or the store cannot be opened
    """
    os.environ.update(_SETTINGS)
    for variable, value in _PATIENCE.items():
        os.environ.setdefault(variable, value)
    if target.folder is not None:
        try:
            target.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _told(target, error) from None

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield MlflowClient(target.uri)
    # OSError: of files, and requests' own; ImportError: the driver of a database
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise _told(target, error) from None


def is_code(error: Exception, *codes: str) -> bool:
    """Whether MLflow raised an error with one of these codes."""
    return getattr(error, "error_code", None) in codes


def _told(target: Target, error: Exception) -> TrackingError:
    text = re.sub(r" with url: \S+", "", " ".join(str(error).split()))
    refused = is_code(error, "UNAUTHENTICATED", "PERMISSION_DENIED") or re.search(r"error code 40[13]", text)
    fix = "start the server, or correct --tracking or MLFLOW_TRACKING_URI; then the same command again"
    if refused:
        fix = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    elif isinstance(error, ImportError):
        fix = "install the driver of this database beside gpuscalp"
    return TrackingError(
        "MLflow cannot be used",
        where=target.uri,
        value=text if len(text) <= _TOLD_MAX else f"{text[:_TOLD_MAX]} …",
        fix=fix,
    )


def _default_folder(environ: Mapping[str, str]) -> Path:
    return user_folder("XDG_DATA_HOME", ".local/share", environ) / "mlflow"
