"""Starting again: what a crash leaves, what a second witness knows, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpuscalp import zstd
from gpuscalp.errors import ConfigError, DataError, ModelError, ParityError, UsageError
from gpuscalp.journal import RecordKind, read_records, segments_of
from gpuscalp.live import checkpoints, retrainer
from gpuscalp.live.backup import backup
from gpuscalp.live.control import is_running
from gpuscalp.live.directory import create, read_about
from gpuscalp.live.market import Work
from gpuscalp.live.moments import likeness
from gpuscalp.live.records import Command, HealthRecord, StateRecord, decode
from gpuscalp.live.restore import restore
from gpuscalp.live.session import Session
from gpuscalp.live.start import check_same
from gpuscalp.live.verify import verify
from gpuscalp.risk.gate import RiskState
from tests.live import script
from tests.live.test_replay import outputs, rewrite


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("material"), seconds=30)


@pytest.fixture(scope="module")
def whole(material: script.Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "session"
    material.replay(path)
    return path


def killed_at(frame: int) -> Callable[[Session], None]:
    """Return what ends a run at a frame the way a kill does: the file closed, nothing written any more."""

    def on_step(session: Session) -> None:
        if session.engine.frame_count >= frame:
            session.journal.abandon()
            raise script.KilledError

    return on_step


@pytest.fixture(scope="module")
def left_broken(material: script.Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broken") / "session"
    often = {"session.checkpoint_s": 0.02, "session.checkpoints_kept": 3}
    with pytest.raises(script.KilledError):
        material.replay(path, often, on_step=killed_at(200))
    return path


@pytest.fixture
def broken(left_broken: Path, tmp_path: Path) -> Path:
    """A session that was killed at frame 200, with checkpoints on its way: a copy, to be changed at will."""
    return Path(shutil.copytree(left_broken, tmp_path / "session"))


def ckpts(path: Path) -> list[Path]:
    return sorted((path / "checkpoints").glob("*.ckpt"))


def test_session_goes_on_to_the_same_end(material: script.Material, broken: Path, whole: Path) -> None:
    assert ckpts(broken)
    partial = broken / "checkpoints" / f"{7:016d}.partial"
    partial.write_bytes(b"cut short by the kill")
    answer = material.replay(broken)
    assert 0 < answer["skipped"] < answer["skipped"] + answer["messages"]
    assert outputs(broken) == outputs(whole)
    assert verify(broken)["differing"] == 0
    assert not partial.exists(), "it once stayed for ever"


@pytest.mark.parametrize("damage", ["altered", "cut", "all gone", "newest gone"])
def test_damaged_checkpoint_is_passed_by(
    material: script.Material, broken: Path, whole: Path, damage: str
) -> None:
    found = ckpts(broken)
    assert len(found) >= 2
    newest = found[-1]
    if damage == "altered":
        data = bytearray(newest.read_bytes())
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
    elif damage == "cut":
        newest.write_bytes(newest.read_bytes()[:-9])
    elif damage == "newest gone":
        newest.unlink()
    else:
        shutil.rmtree(broken / "checkpoints")
    material.replay(broken)
    assert outputs(broken) == outputs(whole)


def test_checkpoint_ahead_of_the_journal_is_passed_by(
    material: script.Material, broken: Path, whole: Path
) -> None:
    """A power cut may take more of the journal than of a checkpoint: the source is read again from there."""
    segment = segments_of(broken / "journal")[0]
    segment.write_bytes(segment.read_bytes()[: len(segment.read_bytes()) // 3])
    (broken / "state.sqlite").unlink()
    material.replay(broken)
    assert outputs(broken) == outputs(whole)


def write_checkpoint(path: Path, content: checkpoints._Content, more: bytes = b"") -> None:
    """Write one whose digest is right, as somebody may who wants it to be read."""
    head = msgspec.msgpack.encode(content)
    body = zstd.packer(1)(len(head).to_bytes(8, "little") + head + more)
    path.write_bytes(checkpoints._MAGIC + hashlib.sha256(body).digest() + body)


def test_checkpoint_in_a_backup_that_names_a_program_is_refused(
    material: script.Material, broken: Path, tmp_path: Path
) -> None:
    """The name led through a module of ours to what that had imported: a restored session ran anything."""
    assert "subprocess" in vars(retrainer)
    arguments = [["args", ["l", 1, ["touch", str(tmp_path / "run")]]]]
    graph = msgspec.msgpack.encode(["u", 0, f"{retrainer.__name__}:subprocess.Popen", arguments])
    content = checkpoints._Content(checkpoints.code_digest(), int(ckpts(broken)[-1].stem), graph, {}, ())
    write_checkpoint(ckpts(broken)[-1], content)
    backup([broken], tmp_path / "backup.tar")
    (restored,) = restore(tmp_path / "backup.tar", tmp_path / "restored")["restored"]
    with pytest.raises(DataError, match="not a graph"):
        material.replay(Path(restored))
    assert not (tmp_path / "run").exists()


def test_checkpoint_that_unpacks_to_more_than_a_state_is_passed_by(
    material: script.Material, broken: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 100 KB took 3 GiB."""
    monkeypatch.setattr(checkpoints, "_HEAD_BYTES_MAX", 1 << 22)
    newest = ckpts(broken)[-1]
    content = checkpoints._Content(checkpoints.code_digest(), int(newest.stem), b"\xc1", {}, ())
    write_checkpoint(newest, content, bytes(1 << 26))
    assert newest.stat().st_size < 1 << 16
    material.replay(broken)
    assert outputs(broken) == outputs(whole)


def test_checkpoint_of_other_sources_is_refused(
    material: script.Material, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "code_digest", lambda: "another")
    with pytest.raises(DataError, match="another version of the program"):
        material.replay(broken)


@pytest.mark.parametrize("cut_short", [False, True], ids=["at once", "by a second start"])
def test_lost_database_is_made_again(broken: Path, monkeypatch: pytest.MonkeyPatch, cut_short: bool) -> None:
    """A start that was killed once left an empty database that no later one filled."""

    def rows(path: Path) -> list[Any]:
        with closing(sqlite3.connect(path / "state.sqlite")) as db, db:
            return [
                db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
                for name in ("orders", "fills", "funding", "positions", "account")
            ]

    before = rows(broken)
    assert before[0]
    (broken / "state.sqlite").unlink()
    if cut_short:

        def killed(*_: object) -> None:
            raise script.KilledError

        with monkeypatch.context() as patch:
            patch.setattr(Session, "_restore_store", killed)
            with pytest.raises(script.KilledError):
                open_session(broken)
    open_session(broken).close(now_ns=1)
    assert rows(broken) == before


def open_session(path: Path) -> Session:
    def clock_of(work: Work) -> Callable[[], int]:
        return lambda: work.now_ns

    return Session(path, now_ns=1, clock_of=clock_of)


def states(path: Path) -> list[StateRecord]:
    return [
        decode(record, StateRecord)
        for record in read_records(path / "journal", torn=True)
        if record.kind == RecordKind.STATE
    ]


def test_gate_that_the_database_knows_as_closed_does_not_open(
    material: script.Material, broken: Path
) -> None:
    """The journal's end was lost, the database's was not: the halt in it counts."""
    session = open_session(broken)
    seq = session.journal.next_seq
    session.close(now_ns=1)
    with closing(sqlite3.connect(broken / "state.sqlite")) as db, db:
        db.execute("INSERT INTO risk_states VALUES (?, 1, 'halt', 'reducing', '{}')", (seq - 1,))
    session = open_session(broken)
    assert session.engine.trader.gate.state is RiskState.HALTED
    assert states(broken)[-1].event == "gate was closed before"
    session.close(now_ns=1)
    check_repeats(broken)


def test_database_ahead_of_the_journal_halts(material: script.Material, broken: Path) -> None:
    with closing(sqlite3.connect(broken / "state.sqlite")) as db, db:
        db.execute("INSERT INTO fills VALUES (999999999, 7, 'BTCUSDT', 1, 1, 1, 1, 0, 0, 1, 1)")
        db.execute(
            "INSERT INTO orders VALUES (5000, 'gs-x-5000', 'BTCUSDT', 1, 1, 0, 1, 1, 'edge', 'new', 1, 0)"
        )
    session = open_session(broken)
    assert session.engine.trader.gate.state is RiskState.HALTED
    assert session.engine.trader.last_order_id == 5_000  # an id that was given out is not given out again
    session.close(now_ns=1)
    check_repeats(broken)


def test_an_order_that_only_the_database_knows_halts(material: script.Material, broken: Path) -> None:
    with closing(sqlite3.connect(broken / "state.sqlite")) as db, db:
        db.execute(
            "INSERT INTO orders VALUES (5000, 'gs-x-5000', 'BTCUSDT', 1, 1, 0, 1, 1, 'edge', 'new', 1, 0)"
        )
    session = open_session(broken)
    assert session.engine.trader.gate.state is RiskState.HALTED
    session.close(now_ns=1)
    check_repeats(broken)


def check_repeats(path: Path) -> None:
    """What a start did because of the database has to come out of the journal alone."""
    found = verify(path)
    assert (found["differing"], found["verdicts_differing"]) == (0, 0)
    with pytest.raises(UsageError, match="a start has halted"):
        likeness(path)
    again = open_session(path)
    assert again.engine.trader.gate.state is RiskState.HALTED
    again.close(now_ns=1)


def test_halt_survives_and_only_a_resume_ends_it(material: script.Material, tmp_path: Path) -> None:
    path = tmp_path / "session"

    def halt(session: Session) -> None:
        gate = session.engine.trader.gate
        if session.engine.frame_count >= 120 and gate.state is RiskState.ACTIVE:
            if not session.market.commands_waiting:
                session.on_command(Command.HALT, "test", session.market.last_recv_ns)
        elif gate.state is RiskState.REDUCING:
            session.journal.abandon()
            raise script.KilledError

    with pytest.raises(script.KilledError):
        material.replay(path, on_step=halt)
    answer = material.replay(path)
    assert answer["state"] == "reducing"
    entries = [
        body
        for kind, body in outputs(path)
        if kind == RecordKind.VERDICT and body["kind"] == "enter" and body["accepted"]
    ]
    halted_ns = states(path)[0].at_ns
    assert entries
    assert max(body["end_ns"] for body in entries) <= halted_ns


def test_flatten_closes_everything_and_lets_nothing_pass(material: script.Material, tmp_path: Path) -> None:
    path = tmp_path / "session"
    asked: list[int] = []

    def on_step(session: Session) -> None:
        held = any(each.qty_e8 for each in session.engine.trader.account.positions)
        if held and session.engine.frame_count > 100 and not asked:
            asked.append(session.engine.frame_count)
            session.on_command(Command.FLATTEN, "test", session.market.last_recv_ns)

    answer = material.replay(path, on_step=on_step)
    assert asked
    assert answer["state"] == "halted"
    assert answer["positions"] == []
    reasons = [body["reason"] for kind, body in outputs(path) if kind == RecordKind.ORDER]
    first = reasons.index("flatten")
    assert set(reasons[first:]) == {"flatten"}
    assert verify(path)["verdicts_differing"] == 0


def test_forged_journal_is_not_gone_on_with(material: script.Material, broken: Path) -> None:
    shutil.rmtree(broken / "checkpoints")
    done = []

    def change(record):  # type: ignore[no-untyped-def]
        if not done and record.kind == RecordKind.VERDICT and b'"accepted":true' in record.body:
            done.append(record.seq)
            return record.body.replace(b'"accepted":true', b'"accepted":false')
        return record.body

    rewrite(broken, change)
    for _ in range(2):  # what was refused holds nothing: the second time it is the same refusal
        with pytest.raises(ParityError, match="does not come out as it was written"):
            open_session(broken)
    assert not is_running(broken)


def test_two_cannot_run_one_session(broken: Path) -> None:
    session = open_session(broken)
    try:
        with pytest.raises(UsageError, match="another process runs this session") as caught:
            open_session(broken)
        assert str(caught.value.value).startswith("process ")
    finally:
        session.close(now_ns=1)
    open_session(broken).close(now_ns=1)


def test_directory_with_something_in_it_is_not_taken(material: script.Material, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="something here already"):
        create(tmp_path, script.trading_config(), material.model, script.INSTRUMENTS, now_ns=1)


def test_another_configuration_is_refused_by_the_key_that_differs(whole: Path) -> None:
    check_same(whole, script.trading_config(), None)
    with pytest.raises(ConfigError, match="another configuration") as caught:
        check_same(whole, script.trading_config(**{"risk.max_spread_bps": 3.0}), None)
    assert str(caught.value.value).startswith("risk.max_spread_bps: 3.0")


def test_another_model_is_refused(whole: Path, tmp_path: Path) -> None:
    check_same(whole, None, whole / "bundle")
    with pytest.raises(ModelError, match="another model"):
        check_same(whole, None, script.write_model(tmp_path / "other", threshold=0.4))


def test_damaged_description_is_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "session.json").write_bytes(b"{}")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_about(tmp_path)
    with pytest.raises(UsageError, match="no session here"):
        read_about(tmp_path / "nothing")


def test_health_that_has_not_changed_is_not_written(broken: Path) -> None:
    session = open_session(broken)
    before = session.journal.next_seq
    health = HealthRecord(3.0, drifted=True, silent=(1,))
    for _ in range(3):
        session.on_health(health, 1)
    assert session.journal.next_seq == before + 1
    session.close(now_ns=1)


def test_every_byte_of_a_checkpoint_is_plain_data(broken: Path) -> None:
    """No checkpoint is ever read by something that could run what it says."""
    for path in ckpts(broken):
        found = checkpoints._read(path, bytes_max=1 << 30)
        assert found is not None
        assert isinstance(msgspec.msgpack.decode(found[0].graph), list)
        assert all(not array.dtype.hasobject for array in found[1].values())
