"""The unit of systemd and the manifests of Kubernetes name what the program really has.

Their words are read by parsers, and every command line in them by the program's own.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from gpuscalp.cli import command_tree
from gpuscalp.config import LiveConfig, load
from gpuscalp.doctor.machine import MEMORY_WARN_BYTES
from gpuscalp.errors import (
    ConfigError,
    DeviceError,
    ModelError,
    ParityError,
    RiskHaltedError,
    UsageError,
)
from gpuscalp.monitoring.channel import FILE_VARIABLE, URLS_VARIABLE
from gpuscalp.monitoring.server import HEALTH, READY
from gpuscalp.nautilus.installed import LIVE
from gpuscalp.nautilus.keys import permit

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "configs" / "systemd" / "gpuscalp@.service"
MANIFEST = ROOT / "configs" / "kubernetes" / "gpuscalp.yaml"
DOCKERFILE = ROOT / "Dockerfile.cuda"
# What a session writes outside of its directory, and where each is told to.
PLACES = {"CUPY_CACHE_DIR", "GPUSCALP_CRASH_DIR", "NUMBA_CACHE_DIR", "XDG_CONFIG_HOME"}


def parsed(words: list[str]) -> dict:
    """Return the options of a command line of ours; anything unknown is an error."""
    command = command_tree().commands[words[0]]
    return command.make_context(words[0], list(words[1:])).params


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def objects() -> dict[str, dict]:
    every = list(yaml.safe_load_all(MANIFEST.read_text()))
    assert len({each["kind"] for each in every}) == len(every)
    return {each["kind"]: each for each in every}


@pytest.fixture(scope="module")
def pod(objects) -> dict:
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod) -> dict:
    (only,) = pod["containers"]
    return only


# systemd ----------------------------------------------------------------------------------------------------


def test_unit_starts_a_session_that_exists_in_the_program():
    (start,) = unit()["ExecStart"]
    program, *words = shlex.split(start)
    assert program.endswith("/gpuscalp")
    options = parsed(words)
    assert options["json"]
    assert str(options["config"]) == "/etc/gpuscalp/%i.toml"
    states = {f"/var/lib/{each}" for line in unit()["StateDirectory"] for each in line.split()}
    assert str(Path(options["session"]).parent) in states
    assert str(Path(options["model"]).parent) in states


def test_real_orders_need_no_more_than_the_runbook_says(container):
    """Unit and manifest named the keys of an account, and every start with it ended: nothing confirmed it."""
    text = (
        (ROOT / "docs" / "operations.md").read_text().partition("\n## Real orders\n")[2].partition("\n## ")[0]
    )
    empty, start = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    (on_paper,) = unit()["ExecStart"]
    assert (empty, start) == ("", f"{on_paper} --confirm-live")
    (patch,) = json.loads(re.findall(r"-p '(\[.+\])'", text)[0])
    assert patch.items() >= {"op": "add", "path": "/spec/template/spec/containers/0/args/-"}.items()
    config = load(LiveConfig, ROOT / "configs" / "nautilus.toml", env={})
    for words in (shlex.split(start)[1:], [*container["args"], patch["value"]]):
        confirmed = parsed(words)["confirm_live"]
        with pytest.raises(
            ConfigError, match="NautilusTrader|no API key"
        ):  # not that nobody has confirmed it
            permit(config, {}, confirmed=confirmed)
    (extras,) = re.findall(r"whl\)\[([a-z,]+)\]", text)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"nautilus", "notify"} <= set(extras.split(",")) <= known.keys()
    assert "python3.12" in text, "the least for which such a NautilusTrader is declared"
    assert f"nautilus_trader>={LIVE}; python_version >= '3.12'" in known["nautilus"]


def test_environment_of_the_unit_is_understood():
    env = dict(each.split("=", 1) for each in unit()["Environment"])
    config = load(LiveConfig, env=env)
    assert config.metrics.port
    assert config.logs.stderr == "json"


def test_what_the_service_writes_lies_in_folders_that_it_is_given():
    # Its home is closed: CuPy could not make its cache there, so no GPU was ever used.
    assert unit()["ProtectHome"] == ["yes"]
    kept = [f"/var/lib/{each}" for line in unit()["StateDirectory"] for each in line.split()]
    cache = [f"/var/cache/{each}" for line in unit()["CacheDirectory"] for each in line.split()]
    env = dict(each.split("=", 1) for each in unit()["Environment"])
    places = {name: Path(value) for name, value in env.items() if value.startswith("/")}
    assert places.keys() >= PLACES | {"GPUSCALP_KERNEL_CACHE"}  # a container has the kernels of its image
    for name, path in places.items():
        assert any(path.is_relative_to(folder) for folder in (*kept, *cache)), name
    # Measured and reported once: `systemctl clean` takes caches alone.
    for name in ("XDG_CONFIG_HOME", "GPUSCALP_CRASH_DIR"):
        assert str(places[name]) in kept


def test_unit_does_not_restart_what_a_start_does_not_mend():
    (codes,) = unit()["RestartPreventExitStatus"]
    kinds = (UsageError, ConfigError, DeviceError, ParityError, ModelError, RiskHaltedError)
    assert {int(code) for code in codes.split()} == {kind.exit_code for kind in kinds}
    assert unit()["Restart"] == ["on-failure"]
    assert unit()["KillSignal"] == ["SIGTERM"]
    assert "MemoryDenyWriteExecute" not in unit(), "kernels are compiled"
    assert unit()["LimitCORE"] == ["0"], "a dump of its memory would hold the keys"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_every_line_of_the_unit(tmp_path):
    # The program, and the manual that is named, need not be installed here.
    program = tmp_path / "gpuscalp"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text().replace("/opt/gpuscalp/bin/gpuscalp", str(program))
    copy = tmp_path / "gpuscalp@one.service"
    copy.write_text(text)
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if copy.name in line]
    assert not said, "\n".join(said)


# Kubernetes -------------------------------------------------------------------------------------------------


def test_one_process_runs_a_session(objects):
    spec = objects["Deployment"]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert objects["Service"]["spec"]["selector"] == spec["selector"]["matchLabels"]
    assert objects["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_probes_ask_for_paths_that_are_served_at_the_port_that_is_opened(objects, container):
    config = load_map(objects)
    (port,) = container["ports"]
    assert port["containerPort"] == config.metrics.port
    assert config.metrics.address == "0.0.0.0"  # the kubelet comes from outside of the pod
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {each["port"] for each in probes.values()} == {port["name"]}
    assert [probes[name]["path"] for name in probes] == [HEALTH, HEALTH, READY]
    (outside,) = objects["Service"]["spec"]["ports"]
    assert (outside["targetPort"], outside["port"]) == (port["name"], port["containerPort"])


def load_map(objects) -> LiveConfig:
    (name,) = objects["ConfigMap"]["data"]
    text = objects["ConfigMap"]["data"][name]
    return load(LiveConfig, overrides=tomllib.loads(text))


def test_command_line_is_understood_and_its_paths_are_mounted(objects, pod, container):
    options = parsed(container["args"])
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert {each["name"] for each in mounts.values()} == volumes.keys()
    (name,) = objects["ConfigMap"]["data"]
    assert str(options["config"]) == f"{mounts['/etc/gpuscalp']['mountPath']}/{name}"
    claim = volumes[mounts["/data"]["name"]]["persistentVolumeClaim"]["claimName"]
    assert claim == objects["PersistentVolumeClaim"]["metadata"]["name"]
    places = {each["name"]: Path(each["value"]) for each in container["env"]}
    assert places.keys() >= PLACES
    kept = [Path(options["session"]), Path(options["model"]), *places.values()]
    assert all(path.is_relative_to("/data") for path in kept), "the file system of the image is read-only"


def test_container_may_do_little_and_is_the_image_s_user(pod, container):
    uid = DOCKERFILE.read_text().partition("\nUSER ")[2].split()[0]
    assert pod["securityContext"]["runAsUser"] == int(uid)
    assert pod["securityContext"]["runAsNonRoot"]
    # Done at each start it gave the group the dashboard's token, which is then refused.
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    assert not pod["automountServiceAccountToken"]


def test_memory_is_enough_for_a_session_and_for_the_training_of_its_next_model(objects, container):
    """The limit was what a training alone may take: a kernel that ends groups ended the session with it."""
    mib = {"Mi": 1, "Gi": 1 << 10}
    session_mb, limit_mb = (
        int(container["resources"][each]["memory"][:-2]) * mib[container["resources"][each]["memory"][-2:]]
        for each in ("requests", "limits")
    )
    assert session_mb << 20 >= MEMORY_WARN_BYTES  # what the doctor wants
    assert limit_mb >= session_mb + load_map(objects).retraining.memory_mb


def test_whom_to_tell_comes_from_the_secret_as_a_variable(container):
    """A file of a secret belongs to root, and to a group where another user is to read it: mode 0440."""
    assert container["envFrom"] == [{"secretRef": {"name": "gpuscalp-keys", "optional": True}}]
    assert URLS_VARIABLE in MANIFEST.read_text()
    assert FILE_VARIABLE not in MANIFEST.read_text()


def test_training_that_is_ended_for_memory_does_not_end_the_service():
    """systemd stops all of a unit when the kernel has ended one process of it, unless it is told not to."""
    assert unit()["OOMPolicy"] == ["continue"]


def test_stop_has_the_same_time_everywhere(pod):
    (unit_s,) = unit()["TimeoutStopSec"]
    assert pod["terminationGracePeriodSeconds"] == int(unit_s)
