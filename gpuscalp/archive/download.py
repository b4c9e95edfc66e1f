"""Downloading published history in the layout of Binance Vision, verified by its checksum files.

Owns: the layout, ranges, retries and the verification. A file appears under its name only when its sha256 is
the published one; until then it is ``NAME.part`` and a later call goes on from its end.
Never: unpacks or imports.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from gpuscalp.errors import DataError, DeadlineError, UsageError
from gpuscalp.progress import Progress, silent

if TYPE_CHECKING:
    from urllib3 import PoolManager

BASE_URL: Final = "https://data.binance.vision"
TYPES: Final = ("aggTrades", "trades", "bookTicker")

_MARKETS: Final = {"binance_usdm": "data/futures/um", "binance_spot": "data/spot"}
_CHUNK_BYTES: Final = 1 << 16
_ATTEMPTS: Final = 5
_CHECKSUM: Final = re.compile(r"([0-9a-f]{64})\s+\*?(\S+)\s*", re.ASCII)


@dataclass(slots=True)
class DownloadReport:
    """What became of every wanted file: paths below the target folder, or below the base URL."""

    downloaded: list[str]
    present: list[str]
    missing: list[str]
    bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def wanted_files(
    symbols: Sequence[str],
    *,
    type: str,
    start: datetime.date,
    end: datetime.date,
    period: Literal["daily", "monthly"] = "daily",
    venue: str = "binance_usdm",
) -> list[str]:
    """List the files of symbols over a range of days, both ends included: paths below the base URL.

    Raises
    ------
    UsageError
        the type or venue is not published, a symbol is none, or the range is empty
    """
    if type not in TYPES:
        raise UsageError("not a type that can be imported", value=type, fix=f"one of: {', '.join(TYPES)}")
    if venue not in _MARKETS:
        raise UsageError(
            "nothing is published for this venue", value=venue, fix=f"one of: {', '.join(_MARKETS)}"
        )
    if end < start:
        raise UsageError(
            "the range ends before it begins", value=f"{start} … {end}", fix="swap --start and --end"
        )
    for symbol in symbols:
        if not symbol.replace("_", "").isalnum():
            raise UsageError("not a symbol", value=symbol, fix="write it like BTCUSDT or BTCUSDT_240927")
    days = [start + datetime.timedelta(days=offset) for offset in range((end - start).days + 1)]
    labels = [day.isoformat() for day in days]
    if period == "monthly":
        labels = list(dict.fromkeys(label[:7] for label in labels))
    root = f"{_MARKETS[venue]}/{period}/{type}"
    return [
        f"{root}/{symbol.upper()}/{symbol.upper()}-{type}-{label}.zip"
        for symbol in symbols
        for label in labels
    ]


def download(
    wanted: Sequence[str],
    target: Path,
    *,
    base_url: str = BASE_URL,
    workers: int = 4,
    timeout_s: float = 30.0,
    proxy_url: str | None = None,
    backoff_s: float = 0.5,
    progress: Progress = silent,
) -> DownloadReport:
    """Download files in parallel and verify each against its ``.CHECKSUM``.

    Parameters
    ----------
    wanted : from ``wanted_files``
    target : folder that gets the same layout as the server
    base_url : where the layout begins
    workers : files at a time
    timeout_s : for connecting, and for every read
    proxy_url : HTTP proxy to go through
    backoff_s : wait after the first failed attempt; doubled after each, five attempts in all
    progress : told (bytes so far, bytes known to come, name); may be called from several threads, one at a
        time

    Returns
    -------
    DownloadReport
        files that the server does not have are listed, not an error

    Raises
    ------
    DataError
        the server cannot be reached, or a file does not have its published checksum, twice in a row
    DeadlineError
        the server did not answer, or broke off, at every attempt
    """
    import urllib3

    if workers < 1:
        raise UsageError("workers must be positive", value=workers)
    report = DownloadReport([], [], [])
    shown = _Shown(progress)
    retries = urllib3.Retry(
        total=_ATTEMPTS - 1,
        backoff_factor=backoff_s,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=("GET",),
        raise_on_status=False,
    )
    timeout = urllib3.Timeout(timeout_s)
    pool: PoolManager
    if proxy_url is None:
        pool = urllib3.PoolManager(maxsize=workers, retries=retries, timeout=timeout)
    else:
        pool = urllib3.ProxyManager(proxy_url, maxsize=workers, retries=retries, timeout=timeout)
    fetcher = _Fetcher(pool, base_url.rstrip("/"), target, backoff_s, shown)
    with ThreadPoolExecutor(workers) as executor:
        futures = {executor.submit(fetcher.fetch, item): item for item in wanted}
        try:
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
        except BaseException:
            # One failure (or an interrupt) ends all; what they have so far stays for the next call.
            fetcher.stop.set()
            for future in futures:
                future.cancel()
            raise
    by_item = {item: future.result() for future, item in futures.items()}
    for item in wanted:
        getattr(report, by_item[item]).append(item)
    report.bytes = shown.received
    return report


class _Fetcher:
    """What the worker threads share."""

    def __init__(
        self, pool: PoolManager, base_url: str, target: Path, backoff_s: float, shown: _Shown
    ) -> None:
        self._pool, self._base_url, self._target = pool, base_url, target
        self._backoff_s, self._shown = backoff_s, shown
        self.stop = threading.Event()

    def fetch(self, item: str) -> Literal["downloaded", "present", "missing"]:
        final = self._target / item
        checksum = self._checksum(item)
        if checksum is None:
            return "missing"
        if final.exists() and _sha256(final) == checksum:
            return "present"
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f"{final.name}.part")
        for attempt in range(2):
            if not self._transfer(item, part):
                return "missing"
            found = _sha256(part)
            if found == checksum:
                part.replace(final)
                return "downloaded"
            # A broken beginning cannot be resumed; once more from nothing, then it is the server's fault.
            part.unlink()
            if attempt:
                raise DataError(
                    "the file does not have its published checksum",
                    where=f"{self._base_url}/{item}",
                    value=found,
                    fix="try again later: the publisher may be replacing it",
                )
        raise AssertionError("unreachable")

    def _checksum(self, item: str) -> str | None:
        url = f"{self._base_url}/{item}.CHECKSUM"
        response = self._request(url, {}, preload=True)
        if response.status == 404:
            return None
        self._refuse_status(response.status, url)
        text = response.data[:1_000].decode("utf-8", "replace")
        match = _CHECKSUM.fullmatch(text)
        if match is None or match.group(2) != _name_of(item):
            raise DataError("not a checksum file", where=url, value=text[:120])
        return match.group(1)

    def _transfer(self, item: str, part: Path) -> bool:
        """Fetch the rest of a file; False when the server does not have it."""
        import urllib3

        url, error = f"{self._base_url}/{item}", ""
        for attempt in range(_ATTEMPTS):
            if self.stop.wait(self._backoff_s * 2 ** (attempt - 1) if attempt else 0):
                raise DeadlineError("stopped", where=url)
            have = part.stat().st_size if part.exists() else 0
            response = self._request(url, {"Range": f"bytes={have}-"} if have else {}, preload=False)
            try:
                if response.status == 404:
                    return False
                if response.status == 416:  # all of it is here already
                    return True
                self._refuse_status(response.status, url)
                resumed = response.status == 206
                length = int(response.headers.get("Content-Length") or 0)
                self._shown.expect(length)
                with part.open("ab" if resumed else "wb") as file:
                    for chunk in self._chunks(response):
                        file.write(chunk)
                        self._shown.add(len(chunk), _name_of(item))
                return True
            except urllib3.exceptions.HTTPError as broken:
                error = f"{type(broken).__name__}: {broken}"[:200]
            finally:
                response.close()  # first: a half-read connection must not be used again
                response.release_conn()
        raise DeadlineError(
            "the transfer broke off at every attempt",
            where=url,
            value=error,
            fix="try again; it goes on from there",
        )

    def _chunks(self, response: Any) -> Iterator[bytes]:
        for chunk in response.stream(_CHUNK_BYTES, decode_content=False):
            if self.stop.is_set():
                raise DeadlineError("stopped", where=response.url)
            yield chunk

    def _request(self, url: str, headers: dict[str, str], *, preload: bool) -> Any:
        import urllib3

        try:
            return self._pool.request("GET", url, headers=headers, preload_content=preload)
        except urllib3.exceptions.LocationParseError as error:
            raise UsageError("not a URL", where=url, value=str(error)) from None
        except urllib3.exceptions.HTTPError as error:
            # Refused, or a name that nobody knows: to wait longer would bring nothing.
            reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
            absent = isinstance(reason, urllib3.exceptions.NewConnectionError)
            kind, what = (DataError, "cannot be reached") if absent else (DeadlineError, "did not answer")
            raise kind(
                f"the server {what}",
                where=url,
                value=f"{type(error).__name__}: {error}"[:200],
                fix="check the network and --base-url, then try again",
            ) from None

    @staticmethod
    def _refuse_status(status: int, url: str) -> None:
        if status not in (200, 206):
            raise DataError("the server refused", where=url, value=f"HTTP {status}")


class _Shown:
    """Progress of all threads together."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self.received = self._expected = 0

    def expect(self, count: int) -> None:
        with self._lock:
            self._expected += count

    def add(self, count: int, name: str) -> None:
        with self._lock:
            self.received += count
            self._progress(self.received, max(self._expected, self.received), name)


def _name_of(item: str) -> str:
    return item.rpartition("/")[2]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
