"""Models by their digests, with aliases and their history: a folder on this machine."""

from __future__ import annotations

from gpuscalp.registry.history import ALIASES, Act, Alias, History, State
from gpuscalp.registry.names import model_path
from gpuscalp.registry.store import Registry, registry_path

__all__ = ["ALIASES", "Act", "Alias", "History", "Registry", "State", "model_path", "registry_path"]
