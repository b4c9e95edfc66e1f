"""The conditions: one definition, read by Prometheus and by a session itself, with the same outcome.

The oracle of what must fire when stands in alert_scenes.py, by hand. Prometheus' own promtool then judges
every step of every scene, and has to agree with what a session would have said; of what a session does not
judge, with the oracle.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from gpuscalp.monitoring.alarms import Alarms
from gpuscalp.monitoring.conditions import CONDITIONS, SEVERITIES
from gpuscalp.monitoring.expressions import Beyond, Scrapes
from gpuscalp.monitoring.rules import rule_file
from tests.monitoring.alert_scenes import SCENES, STEP_S, Scene
from tests.tools import tool

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "configs" / "prometheus" / "alerts.yml"
SESSION = {"instance": "here:9100", "job": "gpuscalp"}
BY_NAME = {each.name: each for each in CONDITIONS}
JUDGED = [each for each in SCENES if isinstance(BY_NAME[each.alert].test, Beyond)]  # by a session too
IDS = [f"{each.alert}-{index}" for index, each in enumerate(JUDGED)]


def _split(series: str) -> tuple[str, dict[str, str]]:
    name, _, rest = series.partition("{")
    return name, dict(re.findall(r'(\w+)="([^"]*)"', rest))


def _fired(scene: Scene) -> list[dict[tuple[str, tuple[tuple[str, str], ...]], Any]]:
    """Return what a session says at each step: everything that fires, by name and labels."""
    alarms = Alarms(CONDITIONS)
    scrapes = Scrapes(alarms.ranges)
    found = []
    for index in range(max(map(len, scene.series.values()))):
        metrics = []
        for series, values in scene.series.items():
            name, labels = _split(series)
            if index < len(values) and values[index] is not None:
                metric = Metric(name, "", "unknown")
                metric.add_sample(name, labels, values[index])
                metrics.append(metric)
        scrapes.add(index * STEP_S, metrics, unix_s=index * STEP_S)
        alarms.observe(scrapes)
        found.append(dict(alarms.firing))
    return found


def test_every_condition_has_a_scene_and_every_scene_a_condition():
    assert {scene.alert for scene in SCENES} == set(BY_NAME)


@pytest.mark.parametrize("scene", JUDGED, ids=IDS)
def test_session_says_what_the_scene_says(scene):
    fired = _fired(scene)
    for at_s, wanted in (*((at, True) for at in scene.fires), *((at, False) for at in scene.silent)):
        labels = {
            tuple((key, value) for key, value in found if key not in SESSION)
            for name, found in fired[at_s // STEP_S]
            if name == scene.alert
        }
        assert labels == ({tuple(sorted(scene.labels.items()))} if wanted else set()), f"at {at_s} s"


def _rule_test(scene: Scene) -> dict[str, Any]:
    """Return a scene as promtool wants it. Expected is at every step what the session said, and of what it
    does not judge what the oracle says."""
    series = []
    for each, values in scene.series.items():
        name, labels = _split(each)
        told = ", ".join(f"{key}={json.dumps(value)}" for key, value in (SESSION | labels).items())
        words = []
        for before, value in zip([None, *values], values, strict=False):
            # A series that a scrape does not bring any more gets a mark; until it comes it has no samples.
            words.append(str(value) if value is not None else "_" if before is None else "stale")
        series.append({"series": f"{name}{{{told}}}", "values": " ".join(words)})
    tests = []

    def expect(at_s: int, name: str, firing: list[dict[str, str]]) -> None:
        expected = []
        for found in firing:
            labels, condition = SESSION | found, BY_NAME[name]
            expected.append(
                {
                    "exp_labels": labels | {"severity": condition.severity},
                    "exp_annotations": {
                        "summary": condition.what.format(**labels),
                        "runbook": f"docs/alerts.md#{name.lower()}",
                    },
                }
            )
        tests.append({"eval_time": f"{at_s}s", "alertname": name, "exp_alerts": expected})

    for index, alarms in enumerate(_fired(scene)):
        by_name: dict[str, list[dict[str, str]]] = {scene.alert: []} if scene in JUDGED else {}
        for name, labels in alarms:
            by_name.setdefault(name, []).append(dict(labels))
        for name, firing in by_name.items():
            expect(index * STEP_S, name, firing)
    if scene not in JUDGED:
        for at_s in scene.fires:
            expect(at_s, scene.alert, [dict(scene.labels)])
        for at_s in scene.silent:
            expect(at_s, scene.alert, [])
    return {
        "name": scene.alert,
        "interval": f"{STEP_S}s",
        "input_series": series,
        "alert_rule_test": tests,
    }


def test_prometheus_and_the_session_agree_at_every_step(tmp_path):
    promtool = tool("promtool")
    file = tmp_path / "test.yml"
    content = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [_rule_test(scene) for scene in SCENES],
    }
    file.write_text(json.dumps(content))  # JSON is YAML
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


def test_promtool_finds_a_wrong_expectation(tmp_path):
    """Otherwise the test above would prove nothing."""
    promtool = tool("promtool")
    wrong = _rule_test(SCENES[0])
    for each in wrong["alert_rule_test"]:
        each["exp_alerts"] = []
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "5s", "tests": [wrong]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0


@pytest.mark.parametrize(
    "words", [("rules", "alerts.yml"), ("config", "prometheus.yml"), ("config", "compose.yml")]
)
def test_promtool_accepts_the_files_that_we_ship(words):
    kind, name = words
    done = subprocess.run(
        [tool("promtool"), "check", kind, RULES.with_name(name)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rule_file_is_written_from_the_conditions():
    assert RULES.read_text() == rule_file(), "gpuscalp notify rules --out configs/prometheus/alerts.yml"


def test_command_writes_the_rule_file(cli, tmp_path):
    out = tmp_path / "alerts.yml"
    done = cli("notify", "rules", "--out", out, "--json")
    assert done.code == 0
    assert out.read_text() == rule_file()
    assert [each["alert"] for each in json.loads(done.stdout)["alerts"]] == list(BY_NAME)


def test_every_alert_has_its_place_in_the_runbook():
    """A heading, what it means, and what to do: the link of an alert leads there."""
    text = (ROOT / "docs" / "alerts.md").read_text()
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [section.split()[0] for section in sections] == [each.name for each in CONDITIONS]
    for section in sections:
        assert "**Means.**" in section, section
        assert "**Do.**" in section, section


def test_labels_of_sentences_are_labels_of_scenes():
    """A sentence with a label that the metric does not have would say `?` to people."""
    for scene in (scene for scene in SCENES if scene.fires):
        wanted = set(re.findall(r"\{(\w+)\}", BY_NAME[scene.alert].what)) - set(SESSION)
        assert wanted <= set(scene.labels), scene.alert


def test_names_are_unique_and_severities_known():
    assert len(BY_NAME) == len(CONDITIONS)
    assert {each.severity for each in CONDITIONS} == set(SEVERITIES)
