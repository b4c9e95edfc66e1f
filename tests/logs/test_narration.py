"""The words of a session's decisions, and the ids by which a frame is followed to its fills."""

from __future__ import annotations

import logging

import pytest
from msgspec import structs

from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.engine import Outcome
from gpuscalp.live.narration import Narrator
from gpuscalp.live.records import FillRecord, OrderRecord, SignalRecord, VerdictRecord

FRAME = SignalRecord(500, 510, (1_000_000, 2_000_000, 3_000_000), b"", b"m", b"", 0, ())
VERDICT = VerdictRecord(500, 1, 1, "entry", "edge", 600.0, 0.5, 0.9, 3.0, 1.0, True)
REFUSED = VerdictRecord(500, 0, -1, "entry", "edge", 600.0, 0.5, 0.9, 3.0, 1.0, False, "max_orders", 5.0, 6.0)
ORDER = OrderRecord(7, "gs-ab-7", 1, 1, 2 * 10**8, False, 500, 520, 0, "edge")
FILL = FillRecord("fill", 7, 1, 530, 540, state="filled", side=1, qty_e8=2 * 10**8, price_e8=10**8)


def outcome(*bodies) -> Outcome:
    kinds = {
        SignalRecord: RecordKind.SIGNAL,
        VerdictRecord: RecordKind.VERDICT,
        OrderRecord: RecordKind.ORDER,
    }
    return Outcome(records=[(kinds.get(type(body), RecordKind.FILL), body) for body in bodies])


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.DEBUG, "gpuscalp")

    def tell(narrator: Narrator, *bodies) -> list[tuple[str, str, str]]:
        caplog.clear()
        narrator.tell(outcome(*bodies))
        return [
            (each.getMessage(), getattr(each, "frame", ""), getattr(each, "order", ""))
            for each in caplog.records
        ]

    return tell


def test_ids_lead_from_the_frame_to_the_fill(told):
    narrator = Narrator("ab", ["BTCUSDT", "ETHUSDT"])
    frame, refused, accepted, sent = told(narrator, FRAME, REFUSED, VERDICT, ORDER)
    assert frame == ("predicted: features 1.000 ms, prediction 2.000 ms, decision 3.000 ms", "@500", "")
    assert refused == ("entry sell: refused by max_orders: 6.0, limit 5.0", "BTCUSDT@500", "")
    assert accepted == ("entry buy: accepted (edge)", "ETHUSDT@500", "")
    assert sent == ("send buy ETHUSDT 2, market: edge", "ETHUSDT@500", "gs-ab-7")
    ((text, *ids),) = told(narrator, FILL)
    assert text.startswith("filled: buy 2 at 1")
    assert ids == ["ETHUSDT@500", "gs-ab-7"]
    ((_, *ids),) = told(narrator, FILL)
    assert ids == ["", "gs-ab-7"], "an order that has ended is forgotten"


def test_order_by_command_has_no_frame(told):
    (sent,) = told(Narrator("ab", ["BTCUSDT", "ETHUSDT"]), ORDER)
    assert sent[1:] == ("", "gs-ab-7")


def test_only_what_is_wanted_is_put_into_words(caplog):
    caplog.set_level(logging.INFO, "gpuscalp")
    Narrator("ab", ["BTCUSDT"]).tell(outcome(FRAME))
    assert not caplog.records


def test_a_refusal_that_repeats_the_one_before_is_said_once(caplog):
    """A closed gate refuses at every frame: the halt's own line was gone within an hour."""
    caplog.set_level(logging.INFO, "gpuscalp")
    narrator = Narrator("ab", ["BTCUSDT", "ETHUSDT"])
    other_rule = structs.replace(REFUSED, code="max_loss")
    for verdict in (REFUSED, structs.replace(REFUSED, symbol=1), REFUSED, REFUSED, other_rule, other_rule):
        narrator.tell(outcome(verdict))
    narrator.tell(outcome(structs.replace(VERDICT, symbol=0), other_rule))
    said = [each.getMessage().split(": ")[1] for each in caplog.records]
    assert said == [
        *["refused by max_orders"] * 2, "refused by max_loss", "accepted (edge)", "refused by max_loss"
    ]  # fmt: skip
