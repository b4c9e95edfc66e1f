"""Changes of model and calibration in a session: for which frames they count, and what repeats them.

The oracle of a margin is a session that had that model from its beginning: features do not depend on the
model, so a frame's margins are those of whichever model led, to the bit, and no frame may be missing.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuscalp.bundle import read_contract
from gpuscalp.config import GridConfig, LabelConfig
from gpuscalp.errors import FeatureMismatchError, MemberError, ModelError, UsageError
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.directory import create
from gpuscalp.live.models import FOLDER
from gpuscalp.live.moments import likeness
from gpuscalp.live.predictor import HostPredictor
from gpuscalp.live.records import ModelRecord, Scaling, SignalRecord, decode, model_text
from gpuscalp.live.replay import run_replay
from gpuscalp.live.session import Session
from gpuscalp.live.verify import verify
from gpuscalp.registry import Registry
from gpuscalp.registry.promotion import prune
from tests.handmade import follows, write_handmade
from tests.live import script
from tests.live.test_replay import outputs, rewrite

FRAME_NS = GridConfig().frame_ms * 10**6
SHARP = Scaling((2.0, 1.0, 2.0), (0.1, 0.0, -0.1))
FLAT = Scaling((0.5, 0.5, 0.5), (0.0, 0.3, 0.0))
HOUR_NS = 3_600 * 10**9


@dataclass
class Material:
    folder: Path
    digests: dict[str, str] = field(default_factory=dict)

    def run(self, path: Path, model: str = "a", **options: Any) -> dict[str, Any]:
        """Replay the market into a session that is begun with a model."""
        material = script.Material.of(self.folder)._replace(model=self.folder / model)
        return material.replay(path, {"session.checkpoint_s": 0.05}, device="cpu", **options)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("models")
    script.write_recording(folder / "market.txt", seconds=14, step_ms=50)
    script.write_exchange_info(folder / "info.json")
    found = Material(folder)
    for name, threshold in (("a", 0.2), ("b", 0.6), ("c", 0.05)):
        script.write_model(folder / name, threshold=threshold)
        found.digests[name] = read_contract(folder / name).digest
    return found


def signals(path: Path) -> list[SignalRecord]:
    return [
        decode(record, SignalRecord)
        for record in read_records(path / "journal")
        if record.kind == RecordKind.SIGNAL
    ]


@pytest.fixture(scope="module")
def alone(material: Material, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, SignalRecord]]:
    """What each model says of each frame when it leads from the beginning."""
    folder = tmp_path_factory.mktemp("alone")
    found = {}
    for name in ("a", "b", "c"):
        material.run(folder / name, name)
        found[name] = {each.end_ns: each for each in signals(folder / name)}
    assert found["a"].keys() == found["b"].keys() == found["c"].keys()
    frames = found["a"].keys()
    assert sum(found["a"][at].margins != found["b"][at].margins for at in frames) > 50
    return found


@dataclass
class Plan:
    """Changes, each before the frame of that number; what was killed in between is done once all the same."""

    changes: list[tuple[int, ModelRecord]]
    killed_at: list[int] = field(default_factory=list)
    shown: dict[int, list[bytes]] = field(default_factory=dict)

    def watch(self, material: Material) -> Callable[[Session], None]:
        kill = iter(self.killed_at)
        end = next(kill, None)
        seen: list[Session] = []

        def on_step(session: Session) -> None:
            nonlocal end
            if not seen or seen[-1] is not session:
                seen.append(session)
                session.engine.watcher = Shown(self.shown)
            done = session.market.model_count
            if done < len(self.changes) and session.engine.frame_count >= self.changes[done][0]:
                change = self.changes[done][1]
                if change.bundle:
                    name = next(n for n, digest in material.digests.items() if digest == change.bundle)
                    assert session.models.add(material.folder / name, now_ns=1) == change.bundle
                session.on_model(change, session.market.last_recv_ns)
            if end is not None and session.engine.frame_count >= end:
                end = next(kill, None)
                session.journal.abandon()
                raise script.KilledError

        return on_step


class Shown:
    """Keeps what lead and shadow say."""

    def __init__(self, shown: dict[int, list[bytes]]) -> None:
        self._shown = shown

    def on_step(self, market, signals, report) -> None:
        self.last = market.end_ns

    def on_report(self, report, order, booked) -> None:
        pass

    def on_models(self, roles) -> None:
        self.roles = roles

    def on_whole(self, end_ns, lead, shadow) -> None:
        assert end_ns == self.last, "not of the frame that was decided last"
        assert end_ns not in self._shown
        for said in (lead, shadow) if shadow is not None else ():
            columns = said.probability[:, [0, 2]], said.agreement, said.edge_bps
            self._shown.setdefault(end_ns, []).append(np.column_stack(columns).astype(np.float32).tobytes())


class InPart:
    """The CPU's predictor, but row 1 is a worker's word, which is wrong and which nobody has looked at."""

    def __init__(self, host: HostPredictor) -> None:
        self._predict, self.begin, self.use, self.signals = host.predict, host.begin, host.use, host.signals

    def predict(self, x, digests, *, wanted):
        found = self._predict(x, digests, wanted=wanted)
        if found.signals is not None:
            found.signals.probability[1] = 1 / 3
        return found._replace(unproved=np.array([False, True]))


def changes_of(material: Material) -> list[tuple[int, ModelRecord]]:
    a, b, c = (material.digests[name] for name in "abc")
    return [
        (30, ModelRecord("lead", b, reason="better", by="rule", evidence={"log_loss": 0.9})),
        (40, ModelRecord("shadow", a)),
        (50, ModelRecord("lead", b, SHARP, reason="recalibrated")),
        (60, ModelRecord("lead", a)),
        (70, ModelRecord("shadow", c, FLAT)),
        (85, ModelRecord("lead", c, FLAT)),
        (95, ModelRecord("shadow", "")),
        (105, ModelRecord("lead", a)),
    ]


def led(found: list[SignalRecord], changes: list[tuple[int, ModelRecord]], material: Material) -> list[str]:
    """Return which model has to have led at each frame."""
    names = {digest: name for name, digest in material.digests.items()}
    leads, now = [], "a"
    due = {at: names[change.bundle] for at, change in changes if change.role == "lead"}
    for number in range(len(found)):
        now = due.get(number, now)
        leads.append(now)
    return leads


@pytest.fixture(scope="module")
def changed(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    path = tmp_path_factory.mktemp("changed") / "session"
    plan = Plan(changes_of(material))
    material.run(path, on_step=plan.watch(material))
    return path, plan


def test_every_frame_is_decided_once_and_by_the_model_that_led(material, alone, changed) -> None:
    path, plan = changed
    found = signals(path)
    assert [each.end_ns for each in found] == sorted(alone["a"]), "as many frames as without a change"
    assert {after.end_ns - before.end_ns for before, after in pairwise(found)} == {FRAME_NS}
    for each, name in zip(found, led(found, plan.changes, material), strict=True):
        assert each.margins == alone[name][each.end_ns].margins
        assert each.model == ("" if name == "a" else material.digests[name][:12])
    # A calibration changes probabilities and no margin; back with another model it is that model's own.
    recalibrated, own = found[55], found[45]
    assert recalibrated.signal != alone["b"][recalibrated.end_ns].signal
    assert own.signal == alone["b"][own.end_ns].signal
    assert found[110].signal == alone["a"][found[110].end_ns].signal
    again = verify(path)
    assert (again["differing"], again["verdicts_differing"], again["frames"]) == (0, 0, len(found))


def test_the_shadow_says_what_it_would_say_as_lead_and_of_every_frame_in_its_time(material, alone, changed):
    path, plan = changed
    said = {each.end_ns: each.signal for each in signals(path)}
    ends = list(said)
    # A shadow that takes the lead is none any more.
    predicted = {each.end_ns for each in signals(path) if each.margins}
    assert set(plan.shown) == predicted & {*ends[40:60], *ends[70:85]}
    for at in ends[40:60]:
        if at in plan.shown:
            assert plan.shown[at] == [said[at], alone["a"][at].signal]


def test_where_workers_lead_the_shadow_is_held_against_all_that_the_lead_says(material, alone, tmp_path):
    """Only rows counted on which the lead could act: there the shadow is the better one of two equals."""
    plan = Plan([(30, ModelRecord("shadow", material.digests["b"]))])
    change = plan.watch(material)

    def on_step(session: Session) -> None:
        if isinstance(session.engine.predictor, HostPredictor):
            session.engine.predictor = InPart(session.engine.predictor)
        change(session)

    material.run(tmp_path / "session", on_step=on_step)
    assert len(plan.shown) > 50
    for at, said in plan.shown.items():
        assert said == [alone[name][at].signal for name in "ab"]


def test_killed_at_any_moment_it_comes_to_the_same_end(material, changed, tmp_path) -> None:
    """Kills at random frames, some of them just where a change had been written and not been taken."""
    whole, plan = changed
    for seed in (1, 2):
        rng = random.Random(seed)
        kills = sorted({*rng.sample(range(5, 115), 4), plan.changes[rng.randrange(8)][0]})
        path, broken = tmp_path / str(seed), Plan(plan.changes, kills)
        watch = broken.watch(material)
        for _ in kills:
            with pytest.raises(script.KilledError):
                material.run(path, on_step=watch)
        material.run(path, on_step=watch)
        assert outputs(path) == outputs(whole)
        found = verify(path)
        assert (found["differing"], found["verdicts_differing"]) == (0, 0)


def test_replay_of_a_session_repeats_its_changes_and_another_model_does_not(
    material, changed, tmp_path
) -> None:
    path, _ = changed
    run_replay([path], tmp_path / "same", device="cpu")
    assert outputs(tmp_path / "same") == outputs(path)
    run_replay([path], tmp_path / "other", model=material.folder / "b", device="cpu")
    assert {each.model for each in signals(tmp_path / "other")} == {""}


def test_a_forged_or_missing_model_does_not_verify(material, changed, tmp_path) -> None:
    path, _ = changed
    b, c = material.digests["b"], material.digests["c"]

    def copy(name: str) -> Path:
        return shutil.copytree(path, tmp_path / name)

    def forged(new: str) -> Callable[[Any], bytes]:
        def change(record: Any) -> bytes:
            return (
                record.body.replace(b.encode(), new.encode())
                if record.kind == RecordKind.MODEL
                else record.body
            )

        return change

    another = copy("another")  # one that is there, and did not lead
    rewrite(another, forged(c))
    assert verify(another)["differing"] > 0
    nobody = copy("nobody")
    rewrite(nobody, forged("0" * 64))
    with pytest.raises(ModelError, match="no bundle here"):
        verify(nobody)
    outside = copy("outside")
    rewrite(outside, forged("../bundle"))
    with pytest.raises(ModelError, match="not the digest"):
        verify(outside)
    gone = copy("gone")
    shutil.rmtree(gone / FOLDER / b)
    with pytest.raises(ModelError, match="no bundle here"):
        verify(gone)
    shutil.rmtree(gone / "checkpoints")  # nor does it start from its first message
    with pytest.raises(ModelError, match="no bundle here"):
        material.run(gone)
    altered = copy("altered")
    forest = altered / FOLDER / b / "forest.npz"
    forest.chmod(0o644)
    data = bytearray(forest.read_bytes())
    data[len(data) // 2] ^= 1
    forest.write_bytes(data)
    with pytest.raises(MemberError):
        verify(altered)


def test_a_backtest_like_a_session_that_changed_its_model_needs_one_that_is_named(changed) -> None:
    path, _ = changed
    with pytest.raises(UsageError, match="changed its model"):
        likeness(path)
    assert len(likeness(path, own_model=False).moments) == len(signals(path))


@pytest.fixture
def quiet(material: Material, tmp_path: Path) -> Iterator[Session]:
    create(tmp_path / "quiet", script.trading_config(), material.folder / "a", script.INSTRUMENTS, now_ns=1)
    session = Session(tmp_path / "quiet", now_ns=1, clock_of=lambda work: lambda: work.now_ns)
    yield session
    session.close(now_ns=1)


def another(material: Material, path: Path, **changes: Any) -> Path:
    """Write the model with another label, grid or market."""
    training = read_contract(material.folder / "a").training
    return write_handmade(
        path,
        msgspec.structs.replace(training.config, **changes),
        lambda names: follows(names.index("queue_imbalance.last"), len(names), 0.2),
        trained_on=training.trained_on,
    )


def test_what_does_not_fit_is_refused_and_leaves_nothing(material, quiet, tmp_path) -> None:
    for number, changes in enumerate(
        (
            {"label": LabelConfig(horizon_ms=700)},
            {"label": LabelConfig(horizon_ms=500, threshold_bps=3.0)},
            {"grid": GridConfig(frame_ms=200)},
            {"symbols": script.SYMBOLS[::-1]},
            {"venue": "synthetic"},
        )
    ):
        with pytest.raises(FeatureMismatchError, match="than the session"):
            quiet.models.add(another(material, tmp_path / f"other-{number}", **changes), now_ns=1)
    torn = shutil.copytree(material.folder / "b", tmp_path / "torn")
    (torn / "forest.npz").write_bytes(b"")
    with pytest.raises(MemberError):
        quiet.models.add(torn, now_ns=1)
    contract = msgspec.json.decode((material.folder / "b" / "contract.json").read_bytes())
    contract["canary"]["margins"]["data"] = contract["canary"]["x"]["data"]
    (torn / "contract.json").write_bytes(msgspec.json.encode(contract))
    with pytest.raises(ModelError):
        quiet.models.add(torn, now_ns=1)
    assert not (quiet.path / FOLDER).exists() or not list((quiet.path / FOLDER).iterdir())
    before = quiet.journal.next_seq
    for record in (
        ModelRecord("lead", material.digests["b"]),
        ModelRecord("lead", ""),
        ModelRecord("lead", material.digests["a"], Scaling((1.0,), (0.0,))),
        ModelRecord("shadow", material.digests["a"], Scaling((1.0, 1.0, float("nan")), (0.0, 0.0, 0.0))),
    ):
        with pytest.raises(ModelError):
            quiet.on_model(record, 1)
    assert quiet.journal.next_seq == before, "what is refused is not written"


def test_a_registry_keeps_what_a_session_has_taken_from_it(material, quiet, tmp_path) -> None:
    registry = Registry(tmp_path / "registry")
    with registry.writing() as writer:
        digests = [writer.add(material.folder / name)[0] for name in ("b", "c")]
    left = quiet.path / FOLDER / ".adding-dead"  # of a process that was killed
    left.mkdir(parents=True)
    for digest in digests:
        quiet.models.add(registry.bundle_path(digest), now_ns=1)
    assert not left.exists()
    assert prune(registry, now_ns=1 + HOUR_NS, really=False)["unused"] == []
    shutil.rmtree(quiet.path / FOLDER / digests[0])
    assert prune(registry, now_ns=1 + HOUR_NS, really=False)["unused"] == [digests[0]]


def test_a_change_is_written_without_secrets_and_with_numbers_that_json_has(material, quiet) -> None:
    quiet.models.add(material.folder / "b", now_ns=1)
    record = quiet.on_model(
        ModelRecord(
            "lead",
            material.digests["b"],
            reason="https://u:hunter2@host/",
            by="rule",
            evidence={"auc": float("nan"), "rows": 3.0},
        ),
        1,
    )
    assert record.evidence == {"auc": None, "rows": 3.0}
    assert "hunter2" not in record.reason + model_text(record)
    quiet.flush()
    (body,) = [each.body for each in read_records(quiet.path / "journal") if each.kind == RecordKind.MODEL]
    assert msgspec.json.decode(body, type=ModelRecord) == record
