"""The kinds of values that configurations are made of. No behaviour."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

PositiveInt = Annotated[int, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]
# Of an ensemble: a member's own is a thousand times as much and more, and XGBoost takes 63 bits.
Seed = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
# TOML has no null: a limit that may be switched off says so in a word.
OFF: Final = "off"
Limit = Positive | Literal["off"]
