"""Metrics of real sessions: they say what the journal says, whatever is not known is absent, names hold."""

from __future__ import annotations

import copy
import json
import math
import re
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gpuscalp.config import MetricsConfig
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.monitoring.conditions import CONDITIONS
from gpuscalp.monitoring.expressions import Beyond
from gpuscalp.monitoring.session_metrics import SessionCollector
from gpuscalp.risk.gate import RiskState
from gpuscalp.risk.rules import RULES
from gpuscalp.schema import E8
from gpuscalp.strategy import SKIP_REASONS
from tests.live.sessions import SYMBOLS, TICK_E8, Market, Running, eager_config, feed_of, write_eager_bundle
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
_HALTED = ("gpuscalp_risk_state", (("state", "halted"),))
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    """Return the value of each series, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def told(status: dict[str, Any], detail: dict[str, Any] | None = None) -> Samples:
    """Return what a status becomes."""
    registry = CollectorRegistry()
    registry.register(SessionCollector(lambda: status, lambda: detail or {}))
    return read(generate_latest(registry).decode())


def series(samples: Samples, name: str, *labels: str) -> dict[Any, float]:
    """Return the series of one metric by the values of labels; a single label's values stand alone."""
    found = {}
    for (each, pairs), value in samples.items():
        if each == name:
            key = tuple(dict(pairs)[label] for label in labels)
            found[key[0] if len(key) == 1 else key] = value
    return found


def single(samples: Samples, name: str) -> float:
    return samples[name, ()]


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        return read(reply.read().decode())


class Told:
    """What a journal says of trading, read as plain JSON."""

    def __init__(self, path: Path) -> None:
        self.refusals: Counter[str] = Counter()
        self.intents: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.fills: list[dict[str, Any]] = []
        self.skips = [0] * len(SKIP_REASONS)
        self.frames = 0
        reasons: dict[int, str] = {}
        for record in read_records(path / "journal"):
            if record.kind not in (RecordKind.VERDICT, RecordKind.ORDER, RecordKind.FILL, RecordKind.SIGNAL):
                continue
            body = json.loads(record.body)
            if record.kind == RecordKind.SIGNAL:
                self.frames += 1
                self.skips = [a + b for a, b in zip(self.skips, body["skips"], strict=True)]
            elif record.kind == RecordKind.VERDICT:
                self.intents[body["reason"]] += 1
                if not body["accepted"]:
                    self.refusals[body["code"]] += 1
            elif record.kind == RecordKind.ORDER and not body.get("cancel"):
                self.sent[body["reason"]] += 1
                reasons[body["order_id"]] = body["reason"]
            elif record.kind == RecordKind.FILL:
                if body["kind"] == "fill":
                    self.fills.append(body)
                if body.get("state") in ("filled", "canceled", "expired", "rejected"):
                    self.ended[body["state"], reasons[body["order_id"]]] += 1

    def trades(self) -> list[int]:
        """Return what each closed round trip has earned, in 1e-8 USDT."""
        held, money, found = Counter[int](), Counter[int](), []
        for fill in self.fills:
            symbol, qty = fill["symbol"], fill["side"] * fill["qty_e8"]
            money[symbol] -= qty * fill["price_e8"] // E8 + fill.get("fee_e8", 0)
            held[symbol] += qty
            if not held[symbol]:
                found.append(money.pop(symbol))
        return found


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    """Return a session that has traded: two scrapes while it ran, and how it ended."""
    port, path = free_port(), tmp_path_factory.mktemp("metrics") / "session"
    bundle = write_eager_bundle(tmp_path_factory.mktemp("model") / "bundle", hold_ms=100)
    with Exchange(Market(), ServeSpec()) as exchange:
        config = eager_config(feed_of(exchange), metrics=MetricsConfig(port=port))
        with Running(path, config, bundle) as running:
            running.wait_trading()
            running.wait(
                lambda status: status["results"]["won"] + status["results"]["lost"] >= 10, "ten trades"
            )
            running.wait(lambda status: status["predictions"]["rows"] >= 100, "matured labels")
            first = scrape(port)
            running.ask("halt")
            running.wait(lambda status: "REDUCING" in status["trading"]["refusals"], "a refusal")
            running.ask("flatten")
            running.wait(lambda status: not status["positions"] and not status["open_orders"], "no position")
            running.wait(lambda _: scrape(port).get(_HALTED) == 1, "a scrape after it")
            second = scrape(port)
            ended = running.stop()
    return first, second, ended


def test_a_scrape_says_what_the_journal_says(traded):
    _, _, ended = traded
    samples, journal = told(ended.status), Told(ended.path)
    assert ended.verification["differing"] == ended.verification["verdicts_differing"] == 0
    assert single(samples, "gpuscalp_frames_total") == journal.frames
    assert series(samples, "gpuscalp_intents_total", "reason") == journal.intents
    refusals = series(samples, "gpuscalp_refusals_total", "rule")
    assert set(refusals) == {rule.code for rule in RULES}, "what has not happened yet is counted as 0"
    assert +Counter(refusals) == journal.refusals
    assert journal.refusals["REDUCING"] > 0
    assert series(samples, "gpuscalp_orders_sent_total", "reason") == journal.sent
    assert series(samples, "gpuscalp_orders_ended_total", "state", "reason") == journal.ended
    assert series(samples, "gpuscalp_skips_total", "reason") == dict(
        zip(SKIP_REASONS, journal.skips, strict=True)
    )
    fills = Counter("maker" if fill.get("maker") else "taker" for fill in journal.fills)
    assert Counter(series(samples, "gpuscalp_fills_total", "liquidity")) == fills
    turnover = sum(fill["qty_e8"] * fill["price_e8"] // E8 for fill in journal.fills) / E8
    assert single(samples, "gpuscalp_turnover_usdt_total") == pytest.approx(turnover)


def test_profit_is_split_as_the_journal_has_it(traded):
    _, _, ended = traded
    samples, journal = told(ended.status), Told(ended.path)
    results = journal.trades()
    won = sum(result > 0 for result in results)
    assert series(samples, "gpuscalp_trades_total", "result") == {"won": won, "lost": len(results) - won}
    last = results[-100:]
    assert single(samples, "gpuscalp_win_ratio") == sum(result > 0 for result in last) / len(last)

    fees = sum(fill.get("fee_e8", 0) for fill in journal.fills) / E8
    profit = sum(results) / E8
    parts = series(samples, "gpuscalp_pnl_component_usdt", "component")
    assert single(samples, "gpuscalp_pnl_usdt") == pytest.approx(profit, abs=1e-6)
    assert single(samples, "gpuscalp_fees_usdt") == pytest.approx(fees)
    assert parts["fees"] == pytest.approx(-fees)
    # The market stands still: every fill pays half of the one tick between bid and ask, and nothing else.
    half = sum(fill["qty_e8"] * TICK_E8 // 2 // E8 for fill in journal.fills) / E8
    assert parts["spread"] == pytest.approx(-half, abs=1e-6)
    assert parts["slippage"] == pytest.approx(0.0, abs=1e-9)
    assert parts["signal"] == pytest.approx(0.0, abs=1e-6)
    assert sum(parts.values()) == pytest.approx(profit, abs=1e-6)


def test_what_is_served_is_what_the_status_says(traded):
    first, second, ended = traded
    for samples in (first, second):
        states = series(samples, "gpuscalp_risk_state", "state")
        assert set(states) == {str(state) for state in RiskState}
        assert sum(states.values()) == 1
        assert single(samples, "process_cpu_seconds_total") > 0
        assert single(samples, "gpuscalp_disk_free_bytes") > 0
    assert series(first, "gpuscalp_risk_state", "state")["active"] == 1
    assert series(second, "gpuscalp_risk_state", "state")["halted"] == 1
    assert series(second, "gpuscalp_risk_cause", "cause") == {"flatten": 1.0, "halt_entries": 1.0}
    info = series(second, "gpuscalp_session_info", "session", "broker", "venue")
    assert list(info) == [(ended.status["session_id"], "paper", "binance_usdm")]


def test_page_of_live_sessions_has_every_key_of_the_status(traded):
    """It left out the name and the id of the session, and its device."""
    page = (ROOT / "docs" / "live.md").read_text()
    rows = re.findall(r"^\| (`.+?) \|", page.partition("\n## Looking at it")[2], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(traded[2].status) - named == set()


def test_durations_and_batches_count_frames_and_ticks(traded):
    _, second, _ = traded
    frames = single(second, "gpuscalp_frames_total")
    for stage in ("features", "predict", "gate"):
        label = (("stage", stage),)
        assert second["gpuscalp_stage_duration_seconds_count", label] == frames
        buckets = series(second, "gpuscalp_stage_duration_seconds_bucket", "stage", "le")
        mine = sorted((float(le), value) for (name, le), value in buckets.items() if name == stage)
        counts = [value for _, value in mine]
        assert counts == sorted(counts)
        assert mine[-1] == (math.inf, frames)
        total_s = second["gpuscalp_stage_duration_seconds_sum", label]
        assert 0 < total_s < frames * max(le for le, _ in mine[:-1])
    ticks = single(second, "gpuscalp_batch_ticks_sum")
    assert 0 < ticks <= single(second, "gpuscalp_ticks_total")


def test_each_symbol_and_stream_is_there_once(traded):
    _, second, ended = traded
    ages = series(second, "gpuscalp_stream_age_seconds", "symbol", "stream")
    kinds = ("trade", "bookTicker", "depth@100ms", "markPrice@1s")
    assert set(ages) == {(symbol, kind) for symbol in SYMBOLS for kind in kinds}
    assert all(0 <= age < 60 for age in ages.values())
    assert series(second, "gpuscalp_book_synced", "symbol") == dict.fromkeys(SYMBOLS, 1.0)
    assert series(second, "gpuscalp_symbol_silent", "symbol") == dict.fromkeys(SYMBOLS, 0.0)
    opened = series(second, "gpuscalp_feed_connections_opened_total", "route")
    assert set(opened) == {"public", "market"}
    lost = ended.status["feeds"]["connections_lost"]
    assert sum(lost.values()) <= sum(note.reason != "stopped" for note in ended.story.lost)


def test_labels_come_from_fixed_lists(traded):
    first, second, _ = traded
    known = {
        "rule": {rule.code for rule in RULES},
        "symbol": {*SYMBOLS, "all"},
        "state": {str(state) for state in RiskState} | {"filled", "canceled", "expired", "rejected", "live",
                  "subscribing", "opening", "waiting", "retired", "off", "idle", "running", "failed"},
        "class": {"DOWN", "FLAT", "UP"},
    }  # fmt: skip
    for name, pairs in second:
        for label, value in pairs:
            assert label not in {"order_id", "client_id"}
            if label in known and name.startswith("gpuscalp_"):
                assert value in known[label], (name, label, value)
    # Hundreds of frames and dozens of orders later only what has happened for the first time is new.
    new = {key[0] for key in second.keys() - first.keys()}
    events = {
        "refusals", "intents", "orders_sent", "orders_ended", "fills", "risk_cause", "score_lost_points",
        "position_usdt", "position_unrealised_usdt", "skips", "feed_messages", "feed_connections",
        "risk_since_timestamp", "live_", "feature_psi", "outlier", "order_rejects",
    }  # fmt: skip
    assert all(any(event in name for event in events) for name in new), new


def test_counters_whose_rise_is_told_are_there_before_anything_has_happened(traded):
    """A series that appears with the first event has not risen: the alert would miss the first burst."""
    first, _, ended = traded
    assert not ended.status["trading"]["rejects"], "what has never happened here"
    served = {name for name, _ in first}
    for condition in CONDITIONS:
        if isinstance(condition.test, Beyond):
            looked_back_on = {name for name, seconds in condition.ranges().items() if seconds}
            assert looked_back_on <= served, condition.name


def test_live_quality_of_a_market_that_stands_still(traded):
    _, second, _ = traded
    # The model says UP at every frame, and the mid never moves: every label is FLAT.
    matured = series(second, "gpuscalp_labels_matured_total", "class")
    assert matured["FLAT"] > 100
    assert matured["UP"] == matured["DOWN"] == 0
    assert single(second, "gpuscalp_live_accuracy_ratio") == 0.0
    assert series(second, "gpuscalp_live_recall_ratio", "class") == {"FLAT": 0.0}
    assert series(second, "gpuscalp_live_precision_ratio", "class") == {"UP": 0.0}


def test_values_that_are_not_known_are_absent(traded):
    _, _, ended = traded
    status = copy.deepcopy(ended.status)
    assert status["drift"] is None, "a bundle made by hand says nothing of its training rows"
    samples = told(status)
    names = {name for name, _ in samples}
    assert not any("psi" in name for name in names)
    assert "gpuscalp_sharpe_ratio" not in names, "not a minute of equity"
    assert "gpuscalp_held_out_accuracy_ratio" not in names
    assert "gpuscalp_stage_duration_seconds_bucket" not in names
    assert not any(math.isnan(value) for value in samples.values())

    status["clock"] = {"offset_ms": None, "error_ms": None, "drifted": True}
    status["predictions"]["live"] = None
    status["results"]["win_ratio"] = None
    status["results"]["components_usdt"]["spread"] = None
    status["last_frame_age_ms"] = None
    samples = told(status)
    names = {name for name, _ in samples}
    for absent in ("clock_offset_seconds", "clock_error_seconds", "live_accuracy_ratio", "win_ratio",
                   "last_frame_age_seconds", "live_recall_ratio"):  # fmt: skip
        assert f"gpuscalp_{absent}" not in names
    assert "spread" not in series(samples, "gpuscalp_pnl_component_usdt", "component")
    assert single(samples, "gpuscalp_clock_drifted") == 1

    before = told({})
    assert {name for name, _ in before} == {"gpuscalp_build_info"}
