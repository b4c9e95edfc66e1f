"""The port of a session answers probes with the right codes, also while somebody scrapes it."""

from __future__ import annotations

import http.client
import json
import threading

from prometheus_client.metrics_core import InfoMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gpuscalp.monitoring.server import HEALTH, METRICS, READY, served
from gpuscalp.redaction import keep
from tests.planted import BY_PLACE, words_in


def get(port: int, path: str, *, method: str = "GET", accept: str = "") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Accept": accept} if accept else {})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body


class Leaky(Collector):
    def collect(self):
        info = InfoMetricFamily("leak", "Words of others.")
        info.add_metric([], {"why": " ".join(BY_PLACE.values()) + " k2PELICANk2k2"})
        yield info


def test_probe_decides_the_code_and_its_body_is_the_answer():
    state = {"ok": True, "reasons": []}
    with served("127.0.0.1", 0, [], {HEALTH: lambda: state}) as port:
        code, kind, body = get(port, HEALTH)
        assert (code, kind, json.loads(body)) == (200, "application/json", state)
        state = {"ok": False, "reasons": [{"what": "loop", "why": "stands"}]}
        code, _, body = get(port, f"{HEALTH}?verbose=1")
        assert (code, json.loads(body)) == (503, state)
        assert get(port, HEALTH, method="HEAD")[::2] == (503, "")


def test_unknown_path_and_broken_probe_are_said():
    def broken():
        raise RuntimeError(BY_PLACE["userinfo"])

    with served("127.0.0.1", 0, [], {READY: broken}) as port:
        code, _, body = get(port, "/")
        assert (code, json.loads(body)["known"]) == (404, [METRICS, READY])
        code, _, body = get(port, READY)
        assert code == 500
        assert "RuntimeError" in body
        assert not words_in(body)
        assert get(port, METRICS)[0] == 200  # and goes on
        assert get(port, READY, method="POST")[0] == 501


def test_metrics_are_read_in_both_forms_and_hold_no_secret():
    keep(["k2PELICANk2k2"])
    with served("127.0.0.1", 0, [Leaky()]) as port:
        for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
            code, kind, body = get(port, METRICS, accept=accept)
            assert (code, kind.split(";")[0]) == (200, accept.split(";")[0])
            assert not words_in(body)
        names = [each.name for each in text_string_to_metric_families(get(port, METRICS)[2])]
        assert [name for name in names if not name.startswith("process_")] == ["leak_info"]


def test_probe_answers_while_a_scrape_stands_still():
    entered, released = threading.Event(), threading.Event()

    class Slow(Collector):
        def collect(self):
            entered.set()
            assert released.wait(60)
            return iter(())

        def describe(self):
            return ()

    with served("127.0.0.1", 0, [Slow()], {HEALTH: lambda: {"ok": True}}) as port:
        scrape = threading.Thread(target=get, args=(port, METRICS))
        scrape.start()
        assert entered.wait(60)
        assert get(port, HEALTH)[0] == 200
        released.set()
        scrape.join()


def test_scrape_waits_for_a_moment_that_suits_and_a_probe_does_not():
    seen = []

    class Watching(Collector):
        def collect(self):
            seen.append("collected")
            return []

    probes = {HEALTH: lambda: {"ok": True}}
    with served("127.0.0.1", 0, [Watching()], probes, before_scrape=lambda: seen.append("waited")) as port:
        seen.clear()  # a collector is asked once when it is registered
        assert get(port, HEALTH)[0] == 200
        assert not seen
        assert get(port, METRICS)[0] == 200
    assert seen == ["waited", "collected"]
