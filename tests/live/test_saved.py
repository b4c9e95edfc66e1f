"""Tables of a session that has only begun; tests/live/test_replay.py reads those of a real one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa

from gpuscalp.config import JournalConfig, LiveConfig
from gpuscalp.journal import JournalWriter
from gpuscalp.live.directory import SESSION_FILE, SessionFile
from gpuscalp.live.saved import SavedSession
from gpuscalp.synthetic import MarketSpec, instruments


def test_tables_without_rows_have_their_types(tmp_path: Path) -> None:
    """Names were of no type, so such a table could not be put together with one that has rows."""
    about = SessionFile("s", 0, "", "cpu", "", LiveConfig(), tuple(instruments(MarketSpec())))
    (tmp_path / SESSION_FILE).write_bytes(msgspec.json.encode(about))
    (tmp_path / "journal").mkdir()
    with JournalWriter(tmp_path / "journal", JournalConfig(), now_ns=0):
        pass
    session = SavedSession.open(tmp_path)
    tables = (session.signals, session.equity, session.verdicts, session.orders, session.fills)
    assert [table.num_rows for table in tables] == [0] * 5
    assert (
        session.signals.schema.field("symbol").type
        == session.signals.schema.field("model").type
        == pa.string()
    )
    assert not any(pa.types.is_null(field.type) for table in tables for field in table.schema)
