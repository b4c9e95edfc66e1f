"""What the rules make of a session's models, and of what was trained: with parts made by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gpuscalp.config import LiveConfig, PromotionConfig
from gpuscalp.errors import ModelError
from gpuscalp.live.records import ModelRecord
from gpuscalp.live.roles import BY_RULE, Roles
from gpuscalp.live.succession import Succession

A, B, C = (letter * 64 for letter in "abc")
NOW_NS = 1_700_000_000 * 10**9


class Lived:
    """A session whose models change at once, and its succession."""

    def __init__(self, path: Path, *, broken: str = "", **config: Any) -> None:
        self.roles, self.taken, self.broken = Roles(A), list[ModelRecord](), broken
        self.rivals = SimpleNamespace(
            leaves="", promotes=False, gaps=dict, evidence=dict, status=lambda: {"test": None, "watch": None}
        )
        session: Any = SimpleNamespace(
            path=path,
            about=SimpleNamespace(created_ns=NOW_NS),
            market=SimpleNamespace(last_recv_ns=0),
            engine=SimpleNamespace(frame_count=0, roles=self.roles),
        )
        monitor: Any = SimpleNamespace(rivals=self.rivals)
        self.succession = Succession(session, LiveConfig(**config), monitor, self.use)

    async def use(self, record: ModelRecord, *, still: Any = None) -> None:
        if record.bundle == self.broken:
            raise ModelError("damaged")
        assert still is None or still(self.roles)
        self.taken.append(record)
        self.roles.take(record, len(self.taken), 0)

    async def polled(self, count: int = 3) -> None:
        for _ in range(count):
            self.succession.poll(NOW_NS)
            while (change := self.succession._change) is not None and not change.done():
                await asyncio.sleep(0.001)


def test_a_shadow_is_promoted_though_the_model_before_cannot_be_used(tmp_path):
    """A way back that was barred once barred the way forward as well, for as long as the lead was off."""

    async def run() -> Lived:
        lived = Lived(tmp_path, broken=A, promotion=PromotionConfig(by="rule"))
        lived.roles.take(ModelRecord("lead", B, by=BY_RULE), 1, 10)
        lived.roles.take(ModelRecord("shadow", C), 2, 20)
        lived.rivals.leaves = "log_loss"
        await lived.polled()
        assert A in lived.succession.status()["unusable"]
        assert not lived.taken
        lived.rivals.promotes = True
        await lived.polled(1)
        return lived

    lived = asyncio.run(run())
    assert [(each.bundle, each.by) for each in lived.taken] == [(C, BY_RULE)]
