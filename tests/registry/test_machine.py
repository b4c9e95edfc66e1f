"""Any acts in any order against a model in plain lists and sets."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gpuscalp.registry import ALIASES, Registry
from gpuscalp.registry.listing import list_models
from gpuscalp.registry.promotion import prune
from tests.thorough import examples

WHICH = st.integers(0, 2)
ALIAS = st.sampled_from(ALIASES)
HOUR_NS = 3_600 * 1_000_000_000


class Machine(RuleBasedStateMachine):
    tiny: dict[str, Path]

    def __init__(self) -> None:
        super().__init__()
        self.digests = list(self.tiny)
        self.folder = tempfile.TemporaryDirectory()
        self.now_ns = 0
        self.registry = Registry(Path(self.folder.name) / "m", clock=lambda: self.now_ns, who="test")
        self.there, self.pinned = set(), set()
        self.stacks: dict[str, list[str]] = {alias: [] for alias in ALIASES}
        self.starting: dict[str, int] = {}
        self.count = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize()
    def add_all(self) -> None:
        for which in range(3):
            self.add(which)

    @rule(which=WHICH)
    def add(self, which: int) -> None:
        digest = self.digests[which]
        with self.registry.writing() as writer:
            assert writer.add(self.tiny[digest]) == (digest, digest not in self.there)
        self.count += digest not in self.there
        self.there.add(digest)

    @rule(several=st.lists(WHICH, min_size=1, max_size=3), alias=ALIAS)
    def promote(self, several: list[int], alias: str) -> None:
        for digest in (self.digests[which] for which in several):
            if digest in self.there:
                with self.registry.writing() as writer:
                    writer.promote(alias, digest)
                self.stacks[alias].append(digest)
                self.count += 1

    @rule(alias=ALIAS)
    def rollback(self, alias: str) -> None:
        with self.registry.writing() as writer:
            known = self.stacks[alias]
            assert writer.state.earlier(alias) == (known[-2] if len(known) > 1 else None)
            if len(known) > 1:
                writer.rollback(alias)
                known.pop()
                self.count += 1

    @rule(which=WHICH, off=st.booleans())
    def pin(self, which: int, off: bool) -> None:
        digest = self.digests[which]
        if digest not in self.there:
            return
        with self.registry.writing() as writer:
            (writer.unpin if off else writer.pin)(digest)
        self.count += (digest in self.pinned) == off
        (self.pinned.discard if off else self.pinned.add)(digest)

    @rule(which=WHICH)
    def begin_a_session(self, which: int) -> None:
        digest = self.digests[which]
        if digest in self.there:
            with self.registry.writing() as writer:
                writer.note_session(digest, Path(self.folder.name) / f"session{which}")
            self.starting[digest] = self.now_ns
            self.count += 1

    @rule(hours=st.integers(0, 2))
    def wait(self, hours: int) -> None:
        self.now_ns += hours * HOUR_NS

    def needed(self) -> set[str]:
        pointed = {digest for stack in self.stacks.values() for digest in stack[-2:]}
        begun = {digest for digest, at_ns in self.starting.items() if self.now_ns - at_ns < HOUR_NS}
        return self.pinned | pointed | begun

    @rule()
    def prune(self) -> None:
        prune(self.registry, now_ns=self.now_ns, really=True)
        self.count += len(self.there - self.needed())
        self.there &= self.needed()

    @invariant()
    def trial_of_prune_names_what_nobody_needs(self) -> None:
        answer = prune(self.registry, now_ns=self.now_ns, really=False)
        assert set(answer["unused"]) == self.there - self.needed()
        assert {each["digest"] for each in answer["kept"]} == self.there & self.needed()

    @invariant()
    def nothing_else_is_there(self) -> None:
        again = Registry(self.registry.path, clock=lambda: self.now_ns)
        answer = list_models(again, now_ns=self.now_ns, acts=1_000)
        assert {row["digest"] for row in answer["models"]} == self.there
        assert {row["digest"] for row in answer["models"] if row["pinned"]} == self.pinned
        for alias in ALIASES:
            known = self.stacks[alias][-1] if self.stacks[alias] else None
            assert answer["aliases"][alias] == known
            assert {r["digest"] for r in answer["models"] if alias in r["aliases"]} == {known} - {None}
        assert len(answer["history"]) == self.count
        assert not any(path.name.startswith(".") for path in (again.path / "bundles").glob("*"))


def test_any_acts_in_any_order_give_what_plain_lists_say(tiny):
    run_state_machine_as_test(
        type("Machine", (Machine,), {"tiny": tiny}),
        settings=settings(
            max_examples=examples(30),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
