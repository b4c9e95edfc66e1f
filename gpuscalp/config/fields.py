"""The kinds of values that configurations are made of. No behaviour."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

# An infinity is no limit: JSON has none, so that what is written with one cannot be read again. And this many
# milliseconds, 31 years, still fit beside a time into int64 nanoseconds.
_MOST: Final = 10**12
PositiveInt = Annotated[int, Meta(gt=0, le=_MOST)]
Count = Annotated[int, Meta(ge=0, le=_MOST)]
# Of an ensemble: a member's own is a thousand times as much and more, and XGBoost takes 63 bits.
Seed = Annotated[int, Meta(ge=0, le=2**53)]
Whole = Annotated[int, Meta(ge=-_MOST, le=_MOST)]
Real = Annotated[float, Meta(ge=-_MOST, le=_MOST)]
Positive = Annotated[float, Meta(gt=0, le=_MOST)]
NonNegative = Annotated[float, Meta(ge=0, le=_MOST)]
# 31 years in seconds, 114 in hours.
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Hours = Annotated[float, Meta(gt=0, le=1e6)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
# TOML has no null: a limit that may be switched off says so in a word.
OFF: Final = "off"
Limit = Positive | Literal["off"]
