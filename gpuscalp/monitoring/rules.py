"""The conditions as a rule file of Prometheus: configs/prometheus/alerts.yml.

Owns: how the file is written. `promtool check rules` and `promtool test rules` are its tests.
"""

from __future__ import annotations

import json
import re
from typing import Final

from gpuscalp.monitoring.conditions import CONDITIONS, SEVERITIES, Condition

_HEAD: Final = """\
# Written by: gpuscalp notify rules --out configs/prometheus/alerts.yml
# What each alert means and what to do about it: docs/alerts.md
groups:
"""


def rule_file() -> str:
    """Return the rule file, one group for each severity."""
    groups = []
    for severity in SEVERITIES:
        rules = [_rule(each) for each in CONDITIONS if each.severity == severity]
        groups.append(f"  - name: gpuscalp-{severity}\n    rules:\n" + "".join(rules))
    return _HEAD + "\n".join(groups)


def _rule(condition: Condition) -> str:
    # A string of JSON is one of YAML too.
    what = json.dumps(re.sub(r"\{(\w+)\}", r"{{ $labels.\1 }}", condition.what), ensure_ascii=False)
    held = f"        for: {condition.hold_s}s\n" if condition.hold_s else ""
    return (
        f"      - alert: {condition.name}\n"
        f"        expr: '{condition.promql()}'\n"
        f"{held}"
        f"        labels:\n          severity: {condition.severity}\n"
        f"        annotations:\n          summary: {what}\n"
        f"          runbook: docs/alerts.md#{condition.name.lower()}\n"
    )
