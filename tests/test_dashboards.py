"""The dashboards as files: written from code, of Grafana's own schema, and fit to be shown.

Grafana itself is not run here. Its schema is: what its SDK (made from it) does not know would be lost on the
way through it and back. That every query has data is shown by tests/live/test_prometheus.py.
"""

from __future__ import annotations

import itertools
import json
import re

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.__main__ import texts
from tests.dashboards import FILES, FOLDER, bare_names, panels, queries, read

CONFIGS = FOLDER.parents[1]
BOARDS = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
# The ids of Grafana's units: packages/grafana-data/src/valueFormats/categories.ts.
UNITS = {
    *("short", "none", "s", "percent", "percentunit", "currencyUSD", "dtdurations", "bytes", "Bps", "hertz"),
    *("celsius", "watt", "hex"),
}


def test_files_are_what_the_code_writes():
    assert {path.name: path.read_text() for path in FILES} == texts(), "run python -m scripts.dashboards"


@BOARDS
def test_dashboard_is_of_grafanas_schema(path):
    """A key or a value that the schema does not have is not in what comes back."""
    board = read(path)
    assert json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(board))) == board


def test_schema_check_finds_a_key_that_is_none():
    board = read(FILES[0])
    board["panels"][1]["titel"] = "wrong"
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(board))) != board


@BOARDS
def test_defaults_are_the_last_quarter_of_an_hour_every_five_seconds(path):
    board = read(path)
    assert board["time"] == {"from": "now-15m", "to": "now"}
    assert board["refresh"] == "5s"
    assert board["uid"] == f"gpuscalp-{path.stem}"
    assert board["title"].startswith("gpuscalp: ")
    assert board["description"]
    assert board["tags"] == ["gpuscalp"]
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names == ["datasource", "session", "instance", "symbol"]


@BOARDS
def test_every_panel_says_what_it_shows_in_which_unit(path):
    shown = list(panels(read(path)))
    assert shown
    for panel in shown:
        where = panel["title"]
        assert panel["title"]
        assert panel["description"].endswith("."), where
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, where
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], where
        assert panel["targets"], where
        for target in panel["targets"]:
            named = len(panel["targets"]) > 1 or panel["type"] in ("timeseries", "heatmap", "bargauge")
            assert target.get("legendFormat") or not named, where
    titles = [(row, panel["title"]) for row, panel in _with_rows(read(path))]
    assert len(set(titles)) == len(titles), "two panels of a row have one title"


def _with_rows(board):
    row = ""
    for panel in board["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        else:
            yield row, panel


@BOARDS
def test_panels_fill_the_width_and_lie_side_by_side(path):
    places = [(panel["title"], panel["gridPos"]) for panel in read(path)["panels"]]
    assert [panel["id"] for panel in read(path)["panels"]] == list(range(1, len(places) + 1))
    for title, at in places:
        assert at["x"] >= 0, title
        assert at["x"] + at["w"] <= 24, title
    for (one, a), (other, b) in itertools.combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one} lies over {other}"


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where[:80])
def test_query_is_of_the_chosen_session_only(query):
    assert not bare_names(query.expression)
    chosen = re.findall(r"\{([^}]*)\}", query.expression)
    assert chosen
    for inside in chosen:
        assert 'instance=~"$instance"' in inside, query.where
    assert "[" not in query.expression or "[$__rate_interval]" in query.expression, query.where


def test_provisioning_points_at_what_is_there():
    provisioned = CONFIGS / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioned / "datasources" / "prometheus.yml").read_text())["datasources"]
    scrapes = yaml.safe_load((CONFIGS / "prometheus" / "prometheus.yml").read_text())
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == scrapes["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioned / "dashboards" / "gpuscalp.yml").read_text())["providers"]
    compose = yaml.safe_load((CONFIGS / "compose.yaml").read_text())["services"]
    mounted = dict(line.split(":")[:2] for line in compose["grafana"]["volumes"])
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (FOLDER / home.removeprefix(f"{provider['options']['path']}/")).is_file()
    assert compose["grafana"]["environment"]["GPUSCALP_PROMETHEUS_URL"] == "http://prometheus:9090"


def test_compose_file_is_complete_and_publishes_on_loopback_only():
    compose = yaml.safe_load((CONFIGS / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert ("image" in service) != ("build" in service)
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port
        for volume in service["volumes"]:
            place = volume.split(":")[0]
            assert (CONFIGS / place).exists() if place.startswith(".") else place in compose["volumes"]
    assert "ports" not in compose["services"]["gpuscalp"]
    inside = yaml.safe_load((CONFIGS / "prometheus" / "compose.yml").read_text())
    outside = yaml.safe_load((CONFIGS / "prometheus" / "prometheus.yml").read_text())
    assert inside["scrape_configs"][0]["static_configs"] == [{"targets": ["gpuscalp:9100"]}]
    inside["scrape_configs"][0]["static_configs"] = outside["scrape_configs"][0]["static_configs"]
    assert inside == outside
