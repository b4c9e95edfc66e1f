"""Files of checkpoints that cannot be read are passed by, whatever is wrong with them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gpuscalp import zstd
from gpuscalp.live import checkpoints


@pytest.mark.parametrize(
    "body",
    [
        b"",
        zstd.packer(1)(bytes(99))[:-3],
        zstd.packer(1)(b"short"),
        zstd.packer(1)((9).to_bytes(8, "little") + b"\xc1"),
    ],
    ids=["nothing", "cut", "no length", "no content"],
)
def test_checkpoint_of_which_nothing_but_the_digest_is_right_is_passed_by(
    tmp_path: Path, body: bytes
) -> None:
    path = tmp_path / "one.ckpt"
    path.write_bytes(checkpoints._MAGIC + hashlib.sha256(body).digest() + body)
    assert checkpoints._read(path, bytes_max=1 << 20) is None
