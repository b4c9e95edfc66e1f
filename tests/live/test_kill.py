"""kill -9 at random moments: nothing acknowledged is lost, and what follows is what would have been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpuscalp.live.verify import verify
from tests.live import script
from tests.live.test_replay import outputs

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("GPUSCALP_KILLS", "20"))  # 200 in .ci/run


@pytest.mark.slow
@pytest.mark.timeout(9 * KILLS)
def test_session_killed_again_and_again_is_the_session_that_was_never_killed(tmp_path: Path) -> None:
    """The scripted run halts entries and resumes, and changes its models every two seconds. Whatever kill
    came, to the bit and to the last unit: the same signals, verdicts, orders (so no id is used twice), fills
    and states; and after a halt was written the gate was never seen open before the script resumed."""
    script.write_material(tmp_path, seconds=50)
    script.write_model(tmp_path / "other", threshold=0.6)
    seed = int(os.environ.get("GPUSCALP_TEST_SEED", sys.version_info.minor))
    done = subprocess.run(
        [sys.executable, "-m", "tests.live.kill_loop", str(tmp_path), str(KILLS), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=9 * KILLS - 20,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] >= KILLS
    assert told["lost"] == 0
    assert told["halted_seen"] > 0
    whole = outputs(tmp_path / "whole")
    assert len(whole) > 500
    assert 20 < sum("model" in body for _, body in whole) < 480, "both models have led"
    for number in range(told["sessions"]):
        session = tmp_path / f"killed-{number}"
        found = outputs(session)
        assert found == whole
        ids = [body["order_id"] for kind, body in found if kind == 18 and not body.get("cancel")]
        assert len(ids) == len(set(ids)) > 10
        answer = verify(session)
        assert (answer["differing"], answer["verdicts_differing"]) == (0, 0)
