"""Dockerfile.cuda, as far as that can be known without building it.

What its instructions say is read from the file; what they run is run here where that needs no container.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gpuscalp import __version__
from gpuscalp.cli import command_tree
from tests.conftest import missing_gpu

ROOT = Path(__file__).resolve().parent.parent
ARCHS = ("75", "80", "86", "89", "90", "100", "120")


class Instruction(NamedTuple):
    word: str
    text: str
    stage: str


def instructions() -> list[Instruction]:
    """Return the instructions with continued lines joined, each with the stage that it stands in."""
    lines = (ROOT / "Dockerfile.cuda").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    found: list[Instruction] = []
    stage = ""
    for line in text.replace("\\\n", "").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                stage = rest.split(" AS ")[1]
            found.append(Instruction(word, rest.strip(), stage))
    return found


ALL = instructions()


def of(word: str, stage: str | None = None) -> list[str]:
    return [each.text for each in ALL if each.word == word and stage in (None, each.stage)]


def environment(stage: str) -> dict[str, str]:
    words = [word for text in of("ENV", stage) for word in shlex.split(text)]
    return dict(word.split("=", 1) for word in words)


def commands() -> Iterator[list[str]]:
    """Yield the words behind ``gpuscalp`` wherever the file runs it."""
    for text in of("RUN"):
        for part in text.split("&&"):
            words = part.split()
            if words[0].rsplit("/", 1)[-1] == "gpuscalp":
                yield words[1:]
    for text in (*of("CMD"), *(text.partition("CMD ")[2] for text in of("HEALTHCHECK"))):
        words = json.loads(text)
        yield words[1:] if words[0] == "gpuscalp" else words


def test_both_stages_start_from_one_image_that_is_pinned_by_digest() -> None:
    images = [text.split(" AS ")[0] for text in of("FROM")]
    assert [text.split(" AS ")[1] for text in of("FROM")] == ["build", "runtime"]
    assert len(set(images)) == 1
    assert re.fullmatch(r"nvidia/cuda:13\.\d+\.\d+-base-ubuntu24\.04@sha256:[0-9a-f]{64}", images[0])
    assert not re.search(r"latest|https?:|index", " ".join(each.text for each in ALL))


def test_container_runs_as_an_unprivileged_user_with_a_number() -> None:
    # By number, so that an orchestrator can see that it is not root.
    (user,) = of("USER")
    assert int(user) > 0
    assert f"--uid {user}" in " ".join(of("RUN", "runtime"))
    after = [each.word for each in ALL[ALL.index(Instruction("USER", user, "runtime")) :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD", "HEALTHCHECK"])
def test_programs_start_without_a_shell(word: str) -> None:
    (text,) = of(word)
    words = json.loads(text.partition("CMD ")[2] if word == "HEALTHCHECK" else text)
    assert all(isinstance(each, str) for each in words)


def test_every_copied_file_is_there_and_reaches_the_builder() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    stages = {each.stage for each in ALL}
    for text in of("COPY"):
        *sources, target = text.split()
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
            continue
        assert target
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source in kept, f".dockerignore keeps {source} from the builder"


def test_shell_commands_are_sound() -> None:
    for text in of("RUN"):
        done = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_command_of_ours_exists_with_its_options() -> None:
    found = list(commands())
    assert ["doctor", "--device", "cuda", "--offline"] in found
    for words in found:
        command: Any = command_tree()
        rest = list(words)
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, words
            command = command.commands[rest.pop(0)]
        if rest != ["--help"]:
            command.make_context("gpuscalp", rest)  # refuses an option that is not there


def test_kernels_are_compiled_for_the_supported_cards_where_the_container_looks() -> None:
    (words,) = [words for words in commands() if words[:2] == ["kernels", "compile"]]
    assert tuple(words[3::2]) == ARCHS
    assert set(words[2::2]) == {"--arch"}
    place = environment("build")["GPUSCALP_KERNEL_CACHE"]
    assert environment("runtime")["GPUSCALP_KERNEL_CACHE"] == place
    copied = [text.split()[1:] for text in of("COPY", "runtime")]
    assert [source for source, target in copied if place.startswith(source + "/") and source == target]
    named = (ROOT / "docs" / "install.md").read_text()
    assert all(f"{arch[:-1]}.{arch[-1]}" in named for arch in ARCHS)


def test_what_the_container_writes_lies_in_folders_of_its_user() -> None:
    given = re.search(r"install -d -o gpuscalp -g gpuscalp ([^&]+)", " ".join(of("RUN", "runtime")))
    assert given is not None
    folders = given[1].split()
    places = {name: value for name, value in environment("runtime").items() if value.startswith("/var")}
    assert set(places) >= {"CUPY_CACHE_DIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CONFIG_HOME"}
    assert all(value.startswith(tuple(f"{folder}/" for folder in folders)) for value in places.values())
    assert of("WORKDIR", "runtime") == ["/data"]


def test_nothing_is_installed_without_its_version() -> None:
    installed = [
        words for text in of("RUN") for part in text.split("&&") if "install" in (words := part.split())[:3]
    ]
    ours = [words for words in installed if words[0].endswith("/pip")]
    assert len(ours) == 3
    for words in ours:
        assert words[2:4] == ["-c", "constraints.txt"] or "--no-deps" in words, words
    assert environment("build")["PIP_ONLY_BINARY"] == ":all:"
    assert "pip uninstall -y pip" in " ".join(of("RUN", "build"))


def test_requirements_are_those_of_the_project(tmp_path: Path) -> None:
    (text,) = [text for text in of("RUN") if "requirements.txt" in text]
    (part,) = [part for part in text.split("&&") if " -c " in part and "tomllib" in part]
    _, _, code, *redirect = shlex.split(part)
    assert redirect == [">", "requirements.txt"]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # Orders on an exchange and notifications, of which the manifests speak, were not in the image.
    extras = [project["optional-dependencies"][name] for name in ("cuda13", "nautilus", "notify")]
    assert done.stdout.splitlines() == [*project["dependencies"], *itertools.chain(*extras)]


def test_labels_are_true() -> None:
    words = [word for text in of("LABEL", "runtime") for word in shlex.split(text)]
    prefix = "org.opencontainers.image."
    labels = {key.removeprefix(prefix): value for key, value in (word.split("=", 1) for word in words)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["version"] == __version__
    assert labels["licenses"] == project["license"]
    assert labels["title"] == project["name"]
    assert of("FROM")[0].startswith(labels["base.name"] + "@")
    assert labels["revision"] == "$REVISION"
    assert of("ARG", "runtime") == ["REVISION=unknown"]


def test_container_without_its_gpu_is_unhealthy(cli: Callable[..., Any]) -> None:
    if missing_gpu() is None:
        pytest.skip("this machine has a GPU")
    (text,) = of("HEALTHCHECK")
    words = json.loads(text.partition("CMD ")[2])
    assert cli(*words[1:]).code == 6


@pytest.mark.gpu
def test_container_with_its_gpu_is_healthy(cli: Callable[..., Any]) -> None:
    (text,) = of("HEALTHCHECK")
    assert cli(*json.loads(text.partition("CMD ")[2])[1:]).code == 0


def test_linter_for_dockerfiles_is_there_in_continuous_integration() -> None:
    steps = (ROOT / ".ci" / "run").read_text()
    assert steps.index('step "linters" need_linters') < steps.index('step "lint"')
    assert "hadolint" in re.search(r"need_linters\(\) \{.*?\n\}", steps, re.DOTALL)[0]  # type: ignore[index]
    assert "hadolint Dockerfile.cuda" in (ROOT / "Makefile").read_text()
