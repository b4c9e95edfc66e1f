"""What may be tuned, and what a trial's values make."""

from __future__ import annotations

import pytest

from gpuscalp.config import (
    BoosterConfig,
    DimensionConfig,
    FeatureConfig,
    LabelConfig,
    ScoreConfig,
    TrainConfig,
    TuneConfig,
)
from gpuscalp.errors import ConfigError
from gpuscalp.tuning.space import TUNABLE, Space


def space(**dimensions: DimensionConfig) -> Space:
    return Space(TuneConfig(space={name.replace("__", "."): each for name, each in dimensions.items()}))


def test_values_land_where_their_keys_say():
    given = space(
        label__horizon_ms=DimensionConfig(choices=(500, 2_000)),
        features__drop=DimensionConfig(choices=((), ("*.512",))),
        booster__eta=DimensionConfig(low=0.01, high=0.5, log=True),
        strategy__min_edge_bps=DimensionConfig(low=0.0, high=3.0),
    )
    train, strategy = given.decode(
        given.read(
            {
                "label.horizon_ms": 2_000,
                "features.drop": ["*.512"],
                "booster.eta": 0.2,
                "strategy.min_edge_bps": 1.5,
            }
        )
    )
    assert train.label.horizon_ms == 2_000
    assert train.features == FeatureConfig(drop=("*.512",))
    assert train.booster.eta == 0.2
    assert strategy.min_edge_bps == 1.5
    untouched = TrainConfig()
    assert (train.grid, train.split, train.booster.rounds) == (
        untouched.grid,
        untouched.split,
        untouched.booster.rounds,
    )


def test_configured_values_are_known_where_they_lie_in_the_space():
    inside = {"booster__eta": DimensionConfig(low=0.01, high=0.5)}
    assert space(**inside).configured() == {"booster.eta": 0.05}
    outside = DimensionConfig(choices=(500, 2_000))
    assert space(**inside, label__horizon_ms=outside).configured() is None


@pytest.mark.parametrize(("configured", "held"), [(2.5, False), (2.0, True)])
def test_whole_ends_hold_no_other_configured_value(configured: float, held: bool) -> None:
    """It became trial 0, which Optuna refused after the whole first generation."""
    train = TrainConfig(booster=BoosterConfig(min_child_weight=configured))
    given = {"booster.min_child_weight": DimensionConfig(low=1, high=50)}
    found = Space(TuneConfig(train=train, space=given)).configured()
    assert found == ({"booster.min_child_weight": configured} if held else None)


@pytest.mark.parametrize(
    ("name", "dimension", "said"),
    [
        ("booster.rounds", DimensionConfig(low=10, high=20), "cannot be tuned"),
        ("grid.frame_ms", DimensionConfig(choices=(100, 200)), "cannot be tuned"),
        ("booster.eta", DimensionConfig(), "needs choices"),
        ("booster.eta", DimensionConfig(low=0.3, high=0.1), "needs choices"),
        ("booster.eta", DimensionConfig(low=0.1, choices=(0.1, 0.2)), "either low and high"),
        ("booster.eta", DimensionConfig(choices=(0.1, 0.1)), "either low and high"),
        ("booster.eta", DimensionConfig(low=0.0, high=0.1, log=True), "logarithmic"),
        ("booster.eta", DimensionConfig(low=0.1, high=1.5), "make no configuration"),
        ("booster.max_depth", DimensionConfig(low=2.0, high=4.5), "make no configuration"),
        ("label.horizon_ms", DimensionConfig(low=300, high=500), "takes choices"),
        ("label.horizon_ms", DimensionConfig(choices=(300, 350)), "whole number of frames"),
        ("features.drop", DimensionConfig(choices=((), ("nothing.*",))), "match"),
    ],
)
def test_space_that_makes_no_sense_is_refused(name, dimension, said):
    with pytest.raises(ConfigError, match=said):
        Space(TuneConfig(space={name: dimension}))


def test_columns_that_go_together_in_no_choice_are_refused():
    """A formula may read what another choice drops."""
    drop = DimensionConfig(choices=((), ("price.slope.*",)))
    read = "my.a = price.slope.8 * price.move.8"
    with pytest.raises(ConfigError, match=r"price\.slope\.8 is not among the columns"):
        space(features__drop=drop, features__add=DimensionConfig(choices=((), (read,))))
    own = (("price.slope.8", read), ("price.move.16",))
    made = space(features__drop=drop, features__add=DimensionConfig(choices=own))
    train, _ = made.decode({"features.add": own[0], "features.drop": ("price.slope.*",)})
    assert train.features.add == own[0]


def test_barrier_labels_are_not_scored_by_a_return_that_nobody_gets():
    """A touch of +3 bps was booked as +3, although the strategy still held when the mid was back."""
    barrier = TrainConfig(label=LabelConfig(kind="barrier"))
    with pytest.raises(ConfigError, match="touch"):
        Space(TuneConfig(train=barrier))
    Space(TuneConfig(train=barrier, score=ScoreConfig("log_loss")))


def test_near_key_is_named():
    with pytest.raises(ConfigError) as caught:
        Space(TuneConfig(space={"booster.etta": DimensionConfig(low=0.1, high=0.2)}))
    assert "booster.eta" in caught.value.fix


def test_every_tunable_key_is_one_of_the_configuration():
    config = TuneConfig()
    for name in TUNABLE:
        section, key = name.split(".")
        assert hasattr(config.strategy if section == "strategy" else getattr(config.train, section), key)


def test_suggested_numbers_have_few_digits_and_stay_inside():
    pytest.importorskip("optuna", reason="extra ray is not installed")
    (eta,) = space(booster__eta=DimensionConfig(low=0.0123412, high=0.5, log=True)).dimensions
    assert eta.from_optuna(0.0772431987) == 0.07724
    assert eta.from_optuna(0.0123413) == 0.0123412
    (drop,) = space(features__drop=DimensionConfig(choices=((), ("*.512",)))).dimensions
    for value in drop.choices:
        assert drop.from_optuna(drop.to_optuna(value)) == value
    assert drop.distribution().choices == (0, 1)
