"""Sessions from recordings: computed once more they are the same to the bit, and altered ones are found."""

from __future__ import annotations

import base64
import shutil
import struct
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from gpuscalp.config import JournalConfig
from gpuscalp.errors import ConfigError, JournalError, ModelError, UsageError
from gpuscalp.journal import JournalWriter, RecordKind, read_records, segments_of
from gpuscalp.live.directory import read_about
from gpuscalp.live.records import FillRecord, OrderRecord, SignalRecord, decode
from gpuscalp.live.repeat import OUTPUTS
from gpuscalp.live.replay import run_replay
from gpuscalp.live.saved import SavedSession
from gpuscalp.live.verify import verify
from tests.live import script


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("material"), seconds=60)


@pytest.fixture(scope="module")
def session(material: script.Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sessions") / "one"
    material.replay(path)
    return path


def outputs(path: Path) -> list[tuple[int, dict]]:
    """Return what a session decided, without what a clock told and without the session's own id."""
    found = []
    for record in read_records(path / "journal"):
        if record.kind in OUTPUTS:
            body = msgspec.json.decode(record.body)
            body.pop("stages_ns", None)
            body.pop("client_id", None)
            found.append((record.kind, body))
    return found


def test_model_with_a_formula_trades_as_the_one_that_has_the_column(
    material: script.Material, session: Path, tmp_path: Path
) -> None:
    model = script.write_model(
        tmp_path / "own",
        column="my.queue",
        add=("my.queue = -queue_imbalance.last * -1 + 0 * price.slope.4", "price.slope.4"),
    )
    material._replace(model=model).replay(tmp_path / "session")
    assert verify(tmp_path / "session")["differing"] == 0
    orders = [body for kind, body in outputs(session) if kind == RecordKind.ORDER]
    assert len(orders) > 20
    assert [body for kind, body in outputs(tmp_path / "session") if kind == RecordKind.ORDER] == orders


def test_session_trades_and_is_reproduced_to_the_bit(session: Path) -> None:
    kinds = Counter(record.kind for record in read_records(session / "journal"))
    assert kinds[RecordKind.SIGNAL] > 500
    assert kinds[RecordKind.ORDER] > 20
    assert kinds[RecordKind.FILL] > 20
    answer = verify(session)
    assert answer["frames"] == kinds[RecordKind.SIGNAL]
    assert answer["rows"] == 2 * answer["frames"]
    assert (answer["differing"], answer["verdicts_differing"], answer["first"]) == (0, 0, None)
    assert answer["ended"]


def test_no_fill_is_before_its_order_has_arrived(session: Path) -> None:
    about = read_about(session)
    way_ns = round(about.config.paper.request.low_ms * 1e6)
    sent = {}
    fills = 0
    for record in read_records(session / "journal"):
        if record.kind == RecordKind.ORDER:
            order = decode(record, OrderRecord)
            assert order.order_id not in sent
            sent[order.order_id] = order.sent_ns
        elif record.kind == RecordKind.FILL:
            fill = decode(record, FillRecord)
            if fill.kind == "fill":
                fills += 1
                assert fill.at_ns >= sent[fill.order_id] + way_ns
    assert fills


def test_saved_session_tells_what_its_records_say(session: Path) -> None:
    saved = SavedSession.open(str(session))
    bodies: dict[int, list] = {kind: [] for kind in RecordKind}
    for record in read_records(session / "journal"):
        if record.kind in (RecordKind.SIGNAL, RecordKind.ORDER, RecordKind.FILL, RecordKind.VERDICT):
            bodies[record.kind].append(msgspec.json.decode(record.body))
    frames = bodies[RecordKind.SIGNAL]
    signals, names = saved.signals.to_pandas(), saved.symbols
    assert len(signals) == len(names) * len(frames)
    at = next(index for index, frame in enumerate(frames) if frame["signal"])
    values = struct.unpack("<8f", base64.b64decode(frames[at]["signal"]))
    columns = ["p_down", "p_up", "agreement", "edge_bps"]
    for index, name in enumerate(names):
        row = signals.iloc[len(names) * at + index]
        assert (row["symbol"], row["end_ns"].value) == (name, frames[at]["end_ns"])
        assert row[columns].tolist() == list(values[4 * index : 4 * index + 4])
        assert row["proved"]
    unpredicted = sum(not frame["signal"] for frame in frames)
    assert signals["edge_bps"].isna().sum() == len(names) * unpredicted
    assert saved.equity["equity_usdt"].to_pylist() == [frame["equity_e8"] / 1e8 for frame in frames]
    orders = saved.orders.to_pandas()
    sent = bodies[RecordKind.ORDER]
    assert orders["client_id"].tolist() == [order["client_id"] for order in sent]
    assert orders["mid"].tolist() == [order["mid2_e8"] / 2 / 1e8 for order in sent]
    assert orders["qty"].tolist() == [order["qty_e8"] / 1e8 for order in sent]
    fills = saved.fills.to_pandas()
    filled = [body for body in bodies[RecordKind.FILL] if body["kind"] == "fill"]
    assert fills["price"].tolist() == [fill["price_e8"] / 1e8 for fill in filled]
    assert fills["symbol"].tolist() == [names[fill["symbol"]] for fill in filled]
    assert set(fills["order_id"]) <= set(orders["order_id"])
    assert saved.verdicts.num_rows == len(bodies[RecordKind.VERDICT])


def test_decision_is_written_after_the_messages_it_rests_on(session: Path) -> None:
    """No frame is decided on before a message, or the clock, has passed its end."""
    newest_ms = 0
    for record in read_records(session / "journal"):
        if record.kind == RecordKind.RAW:
            newest_ms = max(newest_ms, msgspec.json.decode(record.body)["data"]["E"])
        elif record.kind == RecordKind.SIGNAL:
            assert decode(record, SignalRecord).end_ns <= newest_ms * 1_000_000


def test_session_is_replayed_with_its_own_model_and_configuration(session: Path, tmp_path: Path) -> None:
    run_replay([session], tmp_path / "again")
    assert outputs(tmp_path / "again") == outputs(session)


def test_replayed_session_may_have_another_configuration(session: Path, tmp_path: Path) -> None:
    run_replay([session], tmp_path / "again", config=script.trading_config(**{"strategy.min_edge_bps": 1e3}))
    kinds = Counter(record.kind for record in read_records(tmp_path / "again" / "journal"))
    assert kinds[RecordKind.ORDER] == 0
    assert kinds[RecordKind.SIGNAL] > 500


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_one_altered_byte_of_the_journal_is_caught(session: Path, tmp_path: Path, place: float) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(session, copy)
    segment = segments_of(copy / "journal")[0]
    data = bytearray(segment.read_bytes())
    data[int(place * len(data))] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalError):
        verify(copy)


def rewrite(path: Path, change) -> None:  # type: ignore[no-untyped-def]
    """Write a session's journal anew, whole and with good checksums: bodies changed, or left out for None."""
    records = list(read_records(path / "journal"))
    shutil.rmtree(path / "journal")
    with JournalWriter(path / "journal", JournalConfig(), now_ns=1) as journal:
        for record in records:
            if (body := change(record)) is not None:
                journal.append(record.kind, body, recv_ns=record.recv_ns, connection=record.connection)


@pytest.mark.parametrize(
    ("kind", "old", "new", "differing", "other"),
    [
        # A forged price: every row from there on may differ, and what follows from it.
        (RecordKind.RAW, b'"b":"', b'"b":"9', True, None),
        (RecordKind.VERDICT, b'"accepted":true', b'"accepted":false', False, "verdicts"),
        (RecordKind.ORDER, b'"side":1', b'"side":-1', False, "orders"),
        (RecordKind.FILL, b'"fee_e8":', b'"fee_e8":1', False, "fills"),
    ],
)
def test_forged_record_with_good_checksums_is_caught(
    session: Path,
    tmp_path: Path,
    kind: RecordKind,
    old: bytes,
    new: bytes,
    differing: bool,
    other: str | None,
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(session, copy)
    done = []

    def change(record):  # type: ignore[no-untyped-def]
        if not done and record.kind == kind and old in record.body and record.seq > 4_000:
            done.append(record.seq)
            return record.body.replace(old, new, 1)
        return record.body

    rewrite(copy, change)
    assert done
    answer = verify(copy)
    if differing:
        assert answer["differing"] > 0
    if other is not None:
        assert answer["differing_by_kind"] == {other: 1}
        assert f"record {done[0]}" in answer["first"]


def test_missing_decision_is_caught(session: Path, tmp_path: Path) -> None:
    """A verdict that nobody wrote down: the record is dropped, the rest has good checksums."""
    copy = tmp_path / "copy"
    shutil.copytree(session, copy)
    victim = next(
        record.seq
        for record in read_records(copy / "journal")
        if record.kind == RecordKind.VERDICT and record.seq > 4_000
    )
    rewrite(copy, lambda record: None if record.seq == victim else record.body)
    answer = verify(copy)
    assert answer["verdicts_differing"] > 0


def test_another_model_in_the_directory_is_refused(session: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(session, copy)
    shutil.rmtree(copy / "bundle")
    script.write_model(copy / "bundle", threshold=0.3)
    with pytest.raises(ModelError, match="not the model"):
        verify(copy)


def test_unknown_instruments_are_refused(material: script.Material, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="instruments are not known") as caught:
        run_replay([material.recording], tmp_path / "new", model=material.model)
    assert caught.value.value == "BTCUSDT, ETHUSDT"


def test_what_is_no_recording_is_refused(material: script.Material, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a raw recording"):
        material._replace(recording=material.info).replay(tmp_path / "new")


def test_recordings_of_the_real_market_are_reproduced(recordings: Path, tmp_path: Path) -> None:
    """Two symbols on one clock that is 1.5 s behind the exchange's, a real book, no mark prices."""
    day = recordings / "usdm"
    run_replay(
        [day / "btcusdt_20240718.gz", day / "ethusdt_20240718.gz"],
        tmp_path / "session",
        model=script.write_model(tmp_path / "model"),
        config=script.trading_config(**{"risk.max_collar_bps": "off"}),
        exchange_info=recordings / "rest" / "fapi_exchangeInfo_2025.json",
    )
    answer = verify(tmp_path / "session")
    assert answer["frames"] > 1_500
    assert (answer["differing"], answer["verdicts_differing"]) == (0, 0)
    assert any(record.kind == RecordKind.FILL for record in read_records(tmp_path / "session" / "journal"))
