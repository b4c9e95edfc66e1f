"""The same features by ordinary array calls, as a good user of CuPy would write them: what the kernels face.

One object per market. The last 512 frames lie in a ring of twice that length: every window is a slice;
series that several columns need (absolute returns, traded notional …) are made once per frame; each statistic
is computed for all symbols and all its channels at once, and written to its columns with one assignment. What
it gets for free: frames folded to channels already. ``xp`` is CuPy, or NumPy in the test that the numbers are
ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from gpuscalp.schema import Channel

LONGEST: Final = 512
PATH_STATS: Final = ("zscore", "range_position", "range_width", "slope", "residual_std")
SPECTRUM_INPUT: Final = {"return": "return_bps", "flow": "flow_kusdt"}
CLOCKS: Final = {"hour": (3_600, 1), "day": (86_400, 60), "week": (604_800, 3_600)}

# Series behind the channels in the ring.
NAMES: Final = [channel.name.lower() for channel in Channel]
DERIVED: Final = ("abs_return", "gain", "abs_flow", "traded")
ROW: Final = {name: index for index, name in enumerate([*NAMES, *DERIVED])}
RATIOS: Final = {
    "flow.imbalance": "flow_kusdt",
    "flow.toxicity": "abs_flow",
    "flow.illiquidity": "abs_return",
    "flow.vwap_deviation": "vwap_flow",
}


class PeerFeatures:
    """All columns of ``names`` for S symbols, frame by frame.

    Parameters
    ----------
    xp : numpy or cupy
    names : of the columns, in order
    symbol_count : S
    leader : index of the leader symbol
    """

    def __init__(self, xp: Any, names: tuple[str, ...], symbol_count: int, leader: int = 0) -> None:
        self._xp, self._leader = xp, leader
        self._at = {name: index for index, name in enumerate(names)}
        self._ring = xp.full((2 * LONGEST, len(ROW), symbol_count), np.nan, np.float32)
        self._rows = xp.full((len(names), symbol_count), np.nan, np.float32)
        self._frame = 0
        cycles = self._find(r"time\.(hour|day|week)_(sin|cos)")
        self._cycles = [match for _, match in cycles]
        self._clock_at = self._index([*(index for index, _ in cycles), self._at["time.to_funding"]])
        self._steps = [
            self._last(), *self._moments(), *self._paths(), *self._sums(), *self._crosses(), *self._decays(),
            *self._spectra(), *self._context(),
        ]  # fmt: skip

    def step(self, channels: Any, end_ns: int) -> Any:
        """Take the newest frame, float32[C, S]; return float32[S, F], C-contiguous."""
        xp = self._xp
        slot = self._frame % LONGEST
        newest = self._ring[slot]
        newest[: len(NAMES)] = channels
        ret, flow = channels[Channel.RETURN_BPS], channels[Channel.FLOW_KUSDT]
        newest[ROW["abs_return"]] = xp.abs(ret)
        newest[ROW["gain"]] = xp.where(ret < 0, np.float32(0), ret)
        newest[ROW["abs_flow"]] = xp.abs(flow)
        newest[ROW["traded"]] = channels[Channel.BUY_KUSDT] + channels[Channel.SELL_KUSDT]
        self._ring[slot + LONGEST] = newest
        self._frame += 1
        past = slot + LONGEST + 1
        for step in self._steps:
            step(past)
        self._clock(end_ns)
        return xp.ascontiguousarray(self._rows.T)

    def _find(self, pattern: str) -> list[tuple[int, re.Match[str]]]:
        found = ((index, re.fullmatch(pattern, name)) for name, index in self._at.items())
        return [(index, match) for index, match in found if match is not None]

    def _pairs(self, pattern: str) -> tuple[Any, Any]:
        """Return (columns, series) of the columns whose first group names a series."""
        found = [(index, ROW[match[1]]) for index, match in self._find(pattern) if match[1] in ROW]
        columns, series = zip(*found, strict=True) if found else ((), ())
        return self._index(columns), self._index(series)

    def _index(self, places: Sequence[int]) -> Any:
        """Return positions on the device: a list would be copied there at every use."""
        return self._xp.asarray(np.array(places, np.int64))

    def _ratio(self, x: Any, y: Any) -> Any:
        return self._xp.where(y > 0, x / self._xp.where(y > 0, y, np.float32(1)), np.float32(np.nan))

    def _last(self) -> Any:
        columns, series = self._pairs(r"(\w+)\.last")

        def last(past: int) -> None:
            self._rows[columns] = self._ring[past - 1][series]

        return last

    def _moments(self) -> list[Any]:
        xp = self._xp

        def of(size: int) -> Any:
            mean_at, mean_of = self._pairs(rf"(\w+)\.mean\.{size}")
            std_at, std_of = self._pairs(rf"(\w+)\.std\.{size}")
            z_at, z_of = self._pairs(rf"(\w+)\.zscore\.{size}")

            def moments(past: int) -> None:
                window = self._ring[past - size : past, : len(NAMES)]
                mean = window.mean(axis=0)
                self._rows[mean_at] = mean[mean_of]
                if not len(std_at):
                    return
                std = window.std(axis=0, ddof=1)
                self._rows[std_at] = std[std_of]
                if len(z_at):
                    varies = xp.where(std * 32 > xp.abs(mean), std, np.float32(0))[z_of]
                    self._rows[z_at] = self._ratio(window[-1][z_of] - mean[z_of], varies)

            return moments

        return [of(size) for size in (8, 32, 128, 512)]

    def _paths(self) -> list[Any]:
        xp = self._xp

        def of(size: int) -> Any:
            move_at = self._at.get(f"price.move.{size}")
            at = [self._at.get(f"price.{stat}.{size}") for stat in PATH_STATS]
            time = xp.asarray((np.arange(size) - (size - 1) / 2).astype(np.float32))
            square = np.float32((np.arange(size) - (size - 1) / 2) @ (np.arange(size) - (size - 1) / 2))

            def paths(past: int) -> None:
                path = xp.cumsum(self._ring[past - size : past, Channel.RETURN_BPS], axis=0)
                total = path[-1].copy()
                if move_at is not None:
                    self._rows[move_at] = total
                if None in at:
                    return
                path -= total
                low, mean = path.min(axis=0), path.mean(axis=0)
                width = path.max(axis=0) - low
                slope = time @ path / square
                left = path - mean - slope * time[:, None]
                self._rows[at[0]] = self._ratio(-mean, path.std(axis=0, ddof=1))
                self._rows[at[1]] = self._ratio(-low, width)
                self._rows[at[2]] = width
                self._rows[at[3]] = slope
                self._rows[at[4]] = xp.sqrt((left * left).sum(axis=0) / (size - 2))

            return paths

        return [of(size) for size in (2, 4, 8, 32, 128, 512)]

    def _sums(self) -> list[Any]:
        xp = self._xp

        def of(size: int) -> Any:
            at = {name: self._at[f"{name}.{size}"] for name in (*RATIOS, "price.rsi", "price.volatility")}
            ratio_at = self._index([at[name] for name in RATIOS])
            ratio_of = self._index([ROW[series] for series in RATIOS.values()])

            def sums(past: int) -> None:
                total = self._ring[past - size : past].sum(axis=0)
                self._rows[ratio_at] = self._ratio(total[ratio_of], total[ROW["traded"]])
                self._rows[at["price.rsi"]] = 100 * self._ratio(total[ROW["gain"]], total[ROW["abs_return"]])
                self._rows[at["price.volatility"]] = xp.sqrt(total[Channel.VARIANCE_BPS2])

            return sums

        return [of(size) for size in (8, 32, 128, 512)]

    def _crosses(self) -> list[Any]:
        xp = self._xp
        kinds = (
            (Channel.FLOW_KUSDT, "flow.impact", "flow.return_correlation"),
            (Channel.LAGGED_RETURN_BPS, "price.roll_measure", "price.autocorrelation"),
        )

        def of(size: int, other: Channel, slope: str, correlation: str) -> Any:
            slope_at, correlation_at = self._at[f"{slope}.{size}"], self._at[f"{correlation}.{size}"]

            def cross(past: int) -> None:
                x = self._ring[past - size : past, Channel.RETURN_BPS]
                y = self._ring[past - size : past, other]
                x, y = x - x.mean(axis=0), y - y.mean(axis=0)
                both, xx, yy = (x * y).sum(axis=0), (x * x).sum(axis=0), (y * y).sum(axis=0)
                self._rows[correlation_at] = self._ratio(both, xp.sqrt(xx * yy))
                impact = other == Channel.FLOW_KUSDT
                self._rows[slope_at] = self._ratio(both, yy) if impact else -4 * both / (size - 1)

            return cross

        return [of(size, *kind) for size in (32, 128, 512) for kind in kinds]

    def _decays(self) -> list[Any]:
        spans = (8, 32, 128)
        decay = 1 - 2 / (np.array(spans)[:, None] + 1.0)
        weights = decay ** np.arange(LONGEST - 1, -1, -1)
        table = self._xp.asarray((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))

        def of(channel: Channel) -> Any:
            stem = channel.name.lower()
            mean_at = self._index([self._at[f"{stem}.ewm.{span}"] for span in spans])
            macd_at = self._index([self._at[f"{stem}.macd.{a}_{b}"] for a, b in ((8, 32), (32, 128))])

            def decayed(past: int) -> None:
                means = table @ self._ring[past - LONGEST : past, channel]
                self._rows[mean_at] = means
                self._rows[macd_at] = means[:-1] - means[1:]

            return decayed

        return [of(Channel.RETURN_BPS), of(Channel.OFI_KUSDT)]

    def _spectra(self) -> list[Any]:
        return [self._spectrum("return", 64), self._spectrum("return", 256), self._spectrum("flow", 64)]

    def _spectrum(self, stem: str, size: int) -> Any:
        xp = self._xp
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        taper = xp.asarray(hann.astype(np.float32)[:, None])
        bins = xp.arange(1, 9, dtype=np.float32)[:, None]
        series = ROW[SPECTRUM_INPUT[stem]]
        at = {
            name: self._at[f"{stem}.spectrum.{name}.{size}"]
            for name in (
                "amplitude", "band1", "band2", "band3", "band4", "centroid", "participation", "dominant",
                "dominant_share", "phase_cos", "phase_sin",
            )
        }  # fmt: skip

        def spectrum(past: int) -> None:
            window = self._ring[past - size : past, series]
            found = xp.fft.rfft(window * taper, axis=0)[1:9]
            plain = (xp.abs(xp.fft.rfft(window, axis=0)[1:9]) ** 2).sum(axis=0)
            power = xp.abs(found) ** 2
            total = power.sum(axis=0)
            resolved = xp.where(total > plain * 1e-2, total, 0)
            share = self._ratio(power, resolved)
            best = power.argmax(axis=0)
            top = xp.take_along_axis(found, best[None], axis=0)[0]
            self._rows[at["amplitude"]] = xp.sqrt(total) / size
            for band in range(4):
                self._rows[at[f"band{band + 1}"]] = share[2 * band] + share[2 * band + 1]
            self._rows[at["centroid"]] = (share * bins).sum(axis=0) / size
            self._rows[at["participation"]] = 1 / (share * share).sum(axis=0)
            self._rows[at["dominant"]] = xp.where(resolved > 0, (best + 1) / size, np.nan)
            self._rows[at["dominant_share"]] = share.max(axis=0)
            self._rows[at["phase_cos"]] = xp.where(resolved > 0, top.real / xp.abs(top), np.nan)
            self._rows[at["phase_sin"]] = xp.where(resolved > 0, top.imag / xp.abs(top), np.nan)

        return spectrum

    def _context(self) -> list[Any]:
        xp = self._xp

        def columns(kind: str) -> tuple[Any, Any]:
            found = self._find(rf"{kind}\.(.*)")
            targets, sources = [index for index, _ in found], [self._at[match[1]] for _, match in found]
            return self._index(targets), self._index(sources)

        (leader_at, leader_of), (mean_at, mean_of) = columns("leader"), columns("market")
        relative_at, relative_of = columns("relative")

        def context(_: int) -> None:
            self._rows[leader_at] = self._rows[leader_of][:, self._leader, None]
            self._rows[mean_at] = xp.nanmean(self._rows[mean_of], axis=1, keepdims=True)
            own = self._rows[relative_of]
            self._rows[relative_at] = own - xp.nanmean(own, axis=1, keepdims=True)

        return [context]

    def _clock(self, end_ns: int) -> None:
        """Seven numbers, made on the host and sent over at once."""
        second = end_ns // 1_000_000_000
        values = []
        for match in self._cycles:
            period, step = CLOCKS[match[1]]
            angle = 2 * np.pi * (second % period // step * step) / period
            values.append(np.sin(angle) if match[2] == "sin" else np.cos(angle))
        values.append(1 - (second % 28_800) / 28_800)
        self._rows[self._clock_at] = self._xp.asarray(np.array(values, np.float32))[:, None]
