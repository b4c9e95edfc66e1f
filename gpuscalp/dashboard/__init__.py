"""A page that shows a session, and stops it: a process of its own that reads what the session writes."""

from __future__ import annotations

from gpuscalp.dashboard.server import serve

__all__ = ["serve"]
