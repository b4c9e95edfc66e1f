"""A real ``mlflow server`` on loopback, and what it has, read over its REST interface.

With urllib: none of our code, and none of MLflow's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port


class Server:
    """A server's REST interface."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder

    def get(self, call: str, **query: object) -> dict:
        return json.loads(self.raw(f"/api/2.0/mlflow/{call}", query))

    def post(self, call: str, **body: object) -> dict:
        data, head = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.uri}/api/2.0/mlflow/{call}", data, head)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def raw(self, path: str, query: dict | None = None) -> bytes:
        url = f"{self.uri}{path}?{urllib.parse.urlencode(query or {}, doseq=True)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()

    def run(self, run_id: str) -> dict:
        return self.get("runs/get", run_id=run_id)["run"]

    def file(self, run_id: str, name: str) -> bytes:
        return self.raw("/get-artifact", {"run_id": run_id, "path": name})


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    """Start a server, which takes some seconds until it answers, and end it afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
        )
    try:
        yield Server(f"http://127.0.0.1:{port}", folder), process
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # it has children
        process.wait(30)
