"""The set-up scripts: which build is chosen, and what is said where none can be."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def detect_device():
    path = ROOT / "scripts" / "detect_device.py"
    spec = importlib.util.spec_from_file_location("detect_device", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("query", "build"),
    [
        ("580.95.05, 9.0\n", "cuda13"),
        ("581.15, 12.0\n", "cuda13"),
        ("575.57.08, 9.0\n", "cuda12"),
        ("525.60.13, 7.5\n", "cuda12"),
        ("515.10, 8.0\n", "cpu"),
        ("580.95.05, 7.0\n", "cpu"),
        ("580.95.05, 6.1\n580.95.05, 8.6\n", "cuda13"),
        ("No devices were found\n", "cpu"),
        ("580.95.05, [N/A]\n", "cpu"),
        ("", "cpu"),
    ],
)
def test_build_follows_from_driver_and_capability(detect_device, query, build):
    chosen, reason = detect_device.choose(query)
    assert chosen == build
    assert reason


@pytest.mark.parametrize("answer", ["exit 9", "echo 580.95.05, 9.0"])
def test_driver_query_survives_a_failing_tool(detect_device, tmp_path, monkeypatch, answer):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    expected = "cpu" if answer.startswith("exit") else "cuda13"
    assert detect_device.choose(detect_device.ask_driver())[0] == expected


def _set_up(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "VENV": str(tmp_path / "venv"), **variables}
    shell = shutil.which("sh")
    assert shell is not None
    return subprocess.run(
        [shell, str(ROOT / "scripts" / "setup_venv.sh")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_set_up_names_an_interpreter_that_does_not_run(tmp_path):
    done = _set_up(tmp_path, PYTHON=str(tmp_path / "python3.12"))
    assert done.returncode == 1
    assert "is not a Python 3.11 to 3.14" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_set_up_says_what_to_install_where_there_is_no_python(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "cat"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    done = _set_up(tmp_path, PATH=str(tools))
    assert done.returncode == 1
    assert "python3-venv" in done.stderr


def test_set_up_refuses_an_unknown_device(tmp_path):
    done = _set_up(tmp_path, PYTHON=sys.executable, DEVICE="tpu")
    assert done.returncode == 1
    assert "none of auto, cpu, cuda13, cuda12" in done.stderr


def test_set_up_does_not_delete_a_folder_that_is_no_environment(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "precious.txt").write_text("mine")
    done = _set_up(tmp_path, PYTHON=sys.executable, DEVICE="cpu")
    assert done.returncode == 1
    assert "is no virtual environment" in done.stderr
    assert (tmp_path / "venv" / "precious.txt").read_text() == "mine"
