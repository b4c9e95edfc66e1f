"""Members that a training goes on from, instead of beginning anew.

Owns: what has to be equal for that to mean something, and the bound on how far a forest may grow. Never:
trains. XGBoost bins the new rows by themselves: while it goes on, a row may fall on the other side of an old
split whose value lies within a bin. The forest that is written decides as it always did.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec import UnsetType

from gpuscalp.boosters import load_booster
from gpuscalp.bundle import load_bundle
from gpuscalp.config import TrainConfig
from gpuscalp.errors import UsageError
from gpuscalp.train.source import FeatureSource

# Of one member. A prediction takes time in proportion to the trees, and a session has a deadline.
ROUNDS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The members of a bundle.

    Attributes
    ----------
    boosters : in the order of its members
    rounds : that each of them has
    digest : of the bundle
    start_ns, end_ns : the time that it was trained on
    trials : that its configuration was chosen from, where that is known
    """

    boosters: tuple[Any, ...]
    rounds: tuple[int, ...]
    digest: str
    start_ns: int
    end_ns: int
    trials: int | UnsetType

    @classmethod
    def of(cls, path: Path, source: FeatureSource, config: TrainConfig) -> WarmStart:
        """Read the members of a bundle for a training on new rows.

        Parameters
        ----------
        path : the bundle; checked as for predicting
        source, config : of the training that goes on

        Raises
        ------
        UsageError    venue, symbols, frame grid, label or number of members are others, or the forest would
            grow beyond ``ROUNDS_MAX``
        FeatureMismatchError, MemberError, CanaryError
            as ``load_bundle``
        """
        contract = load_bundle(path, graph=source.graph).contract
        theirs = contract.training
        for name, its, wanted in (
            ("venue", theirs.venue, source.venue),
            ("symbols", theirs.symbols, source.symbols),
            ("frame grid", theirs.config.grid, config.grid),
            ("label", theirs.config.label, config.label),
            ("number of members", len(contract.members), config.ensemble.members),
        ):
            if its != wanted:
                raise UsageError(
                    f"a training goes on with the same {name} only",
                    where=str(path),
                    value=f"the model has {its}, the configuration {wanted}",
                    fix="change the configuration, or train without --warm-start",
                )
        rounds = tuple(member.rounds for member in contract.members)
        if max(rounds) + config.booster.rounds > ROUNDS_MAX:
            raise UsageError(
                f"a member may have {ROUNDS_MAX} rounds at most",
                where="booster.rounds",
                value=f"{max(rounds)} of the model and up to {config.booster.rounds} more",
                fix="fewer rounds, or train without --warm-start: a forest does not forget, it only grows",
            )
        files = [path / member.file.path for member in contract.members]
        boosters = tuple(load_booster(file.read_bytes(), str(file)) for file in files)
        span = theirs.trained_on
        return cls(boosters, rounds, contract.digest, span.start_ns, span.end_ns, theirs.trials)

    def check_newer(self, first_ns: int) -> None:
        """Refuse rows that the model has seen: what it says of them is no evidence.

        Parameters
        ----------
        first_ns : of the rows

        Raises
        ------
        UsageError
        """
        if first_ns < self.end_ns:
            raise UsageError(
                "the new rows begin before the model's training ends",
                where="--warm-start",
                value=f"{first_ns} before {self.end_ns}",
                fix="--from, or an archive of later data",
            )
