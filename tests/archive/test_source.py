from __future__ import annotations

import gzip
import hashlib
import zipfile
from pathlib import Path

import pytest

from gpuscalp.archive import source
from gpuscalp.archive.instruments import read_exchange_info
from gpuscalp.archive.source import content_of, digest_of, head_of, lines_of
from gpuscalp.errors import DecodeError, UsageError

LINES = [b"%d %s" % (number, b"x" * (number % 300)) for number in range(5_000)]
CONTENT = b"\n".join(LINES) + b"\n"


def packed(path: Path, kind: str) -> Path:
    if kind == "plain":
        path.write_bytes(CONTENT)
    elif kind == "crlf, no last newline":
        path.write_bytes(CONTENT.replace(b"\n", b"\r\n")[:-2])
    elif kind == "gzip":
        path.write_bytes(gzip.compress(CONTENT))
    elif kind == "two gzip members":
        path.write_bytes(gzip.compress(CONTENT[:77_777]) + gzip.compress(CONTENT[77_777:]))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.csv", CONTENT)
    return path


PACKINGS = ("plain", "crlf, no last newline", "gzip", "two gzip members", "zip")


@pytest.mark.parametrize(
    ("kind", "block"), [(kind, block) for kind in PACKINGS for block in (1_000, 1 << 18)] + [("plain", 1)]
)
def test_lines_come_from_any_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, block: int
) -> None:
    monkeypatch.setattr(source, "BLOCK_BYTES", block)
    path = packed(tmp_path / "any.name", kind)
    progress = [0]
    assert list(lines_of(path, progress)) == LINES
    assert progress[0] == path.stat().st_size


def test_cut_gzip_yields_what_it_can_and_then_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(CONTENT)[:-200])
    seen: list[bytes] = []
    with pytest.raises(DecodeError, match="damaged or cut"):
        seen.extend(lines_of(path))
    assert seen[:-1] == LINES[: len(seen) - 1]


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_zip_says_so_whatever_packed_it(tmp_path: Path, how: int) -> None:
    """The error of bz2 is one of the system without a number, that of LZMA has a class of its own."""
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("a", CONTENT)
    data = bytearray(path.read_bytes())
    data[200:300] = bytes(100)
    path.write_bytes(data)
    for read in (lambda: list(lines_of(path)), lambda: content_of(path)):
        with pytest.raises(DecodeError, match="damaged or cut"):
            read()
    assert CONTENT.startswith(head_of(path))


def test_zip_whose_directory_points_nowhere_is_damaged(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", "zip")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 42  # where the member begins
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(DecodeError, match="damaged or cut"):
        list(lines_of(path))


def test_head_is_whole_lines(tmp_path: Path) -> None:
    assert (
        head_of(packed(tmp_path / "a.gz", "gzip")) == CONTENT[: CONTENT[: source.HEAD_BYTES].rfind(b"\n") + 1]
    )


def test_digest_is_of_the_file(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", "zip")
    assert digest_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        list(lines_of(tmp_path / "none"))
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("b", "2")
    with pytest.raises(UsageError, match="exactly one"):
        list(lines_of(tmp_path / "two.zip"))
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(DecodeError, match="damaged"):
        list(lines_of(tmp_path / "bad.zip"))


@pytest.mark.parametrize(
    ("at", "changed", "what"),
    [((6, 8), 1, "encrypted"), ((8, 10), 97, "compression method"), ((None, 6), 99, "zip file version 9.9")],
    ids=["password", "compression", "version"],
)
def test_zip_that_python_cannot_unpack_is_refused(
    tmp_path: Path, at: tuple[int | None, int], changed: int, what: str
) -> None:
    """It ended in a traceback."""
    path = packed(tmp_path / "a.zip", "zip")
    content = bytearray(path.read_bytes())
    local, central = at
    if local is not None:
        content[local] = changed
    content[content.rindex(b"PK\x01\x02") + central] = changed
    path.write_bytes(content)
    for use in (head_of, lambda path: list(lines_of(path)), lambda path: read_exchange_info(path, "x")):
        with pytest.raises(UsageError, match="cannot be unpacked") as caught:
            use(path)
        assert what in str(caught.value.value)


def test_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LINE_BYTES_MAX", 1_000)
    (tmp_path / "long").write_bytes(b"a\n" + b"x" * 10**6)
    lines = lines_of(tmp_path / "long")
    assert next(lines) == b"a"
    with pytest.raises(DecodeError, match="longer than"):
        next(lines)
