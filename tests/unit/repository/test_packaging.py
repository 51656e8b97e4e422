"""The files in packaging/ agree with the programs and the repository (requirements A10, A11)."""

import configparser
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hotpool_agent.cli.program import app
from hotpool_agent.settings import Settings
from localfleet.kind import REPOSITORY
from localimages import pip_settings
from localimages.buildah import check_machine
from localimages.errors import ImageError

ROOT = REPOSITORY
PACKAGING = ROOT / "packaging"


def project() -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def unit() -> dict[str, str]:
    """Return key → value of the systemd unit, in which each key occurs once."""
    lines = (PACKAGING / "hotpool-agent.service").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if re.match(r"[A-Z]\w*=", line)]
    assert len({key for key, _ in pairs}) == len(pairs)
    return {line[0]: line[1] for line in pairs}


def options_of_run() -> set[str]:
    return {option for parameter in app.load("run").params for option in parameter.opts}


def test_the_unit_starts_the_program_and_does_not_end_its_services() -> None:
    values = unit()
    program, verb, *words = shlex.split(values["ExecStart"])
    assert (Path(program).name, verb) == ("hotpool-agent", "run")
    assert {word for word in words if word.startswith("-")} <= options_of_run()
    assert (values["KillMode"], values["Restart"], values["OOMPolicy"]) == ("process", "always", "continue")
    assert values["Environment"] == f"HOTPOOL_AGENT_STATE_DIR=%S/{values['StateDirectory']}"
    # systemd would delete their folders at the agent's end, while services still run.
    assert not {"PrivateTmp", "RuntimeDirectory", "DynamicUser"} & set(values)


def test_the_unit_leaves_the_soft_limit_of_open_files_as_usual_and_delegates_control_groups() -> None:
    values = unit()
    assert values["LimitNOFILE"] == "1024:1048576"
    assert values["Delegate"] == "yes"
    assert "ProtectControlGroups" not in values


def test_the_unit_waits_longer_than_a_graceful_stop_takes() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    longest = defaults["announce_seconds"] + 1 + defaults["stop_seconds"] + 5 + 2 * defaults["request_seconds"]
    assert int(unit()["TimeoutStopSec"]) > 2 * longest


def test_a_reload_of_the_unit_sends_sighup() -> None:
    assert unit()["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]


def dockerfile() -> list[list[str]]:
    """Return the instructions of the Dockerfile as words, with continued lines joined."""
    text = (PACKAGING / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_copies_existing_files_of_the_build_context() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    context = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for line in dockerfile() if line[0] == "COPY" and "--from" not in line[1] for name in line[1:-1]}
    assert copied == context
    assert all((ROOT / name).exists() for name in copied)


def test_the_base_is_an_argument_and_the_last_stage_needs_no_shell_and_no_root() -> None:
    lines = dockerfile()
    assert lines[0][:2] == ["ARG", "BASE=python:3.13-slim"]
    stages = [number for number, line in enumerate(lines) if line[0] == "FROM"]
    assert {lines[number][1] for number in stages} == {"${BASE}", "dependencies"}
    last = lines[stages[-1] :]
    assert "RUN" not in {line[0] for line in last}
    assert [line[1] for line in last if line[0] == "USER"] == ["65532:65532"]
    assert ["ARG", f"VERSION={project()['version']}"] in last


def test_the_image_installs_locked_versions_only() -> None:
    installs = [" ".join(line) for line in dockerfile() if line[0] == "RUN" and "install" in line]
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-index --no-deps" in line for line in installs)
    names = re.findall(r"^[\w-]+(?=[>=])", (PACKAGING / "build.in").read_text(encoding="utf-8"), re.MULTILINE)
    assert names
    lock = (PACKAGING / "build.lock").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name}==", lock, re.MULTILINE) for name in names)


def test_the_image_installs_the_requirements_of_its_extras() -> None:
    words = [sys.executable, str(PACKAGING / "requirements.py"), "operator"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    extras = project()["optional-dependencies"]
    own = {line for line in extras["operator"] if not line.startswith("hotpool[")}
    assert set(listed) == {*project()["dependencies"], *own, *extras["lookup"]}


def test_building_an_image_without_its_programs_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ImageError, match="apt-get install debootstrap buildah"):
        check_machine()


def test_building_an_image_without_root_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="root"):
        check_machine()


def test_a_build_gets_the_pip_settings_for_package_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "ca.crt"
    certificate.touch()
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://one.example\nrequire-virtualenv = true\n")
    for name, value in {
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PIP_INDEX_URL": "https://user:word@two.example/simple",
        "PIP_CERT": str(certificate),
        "PIP_FIND_LINKS": f"{tmp_path / 'absent'} https://three.example",
    }.items():
        monkeypatch.setenv(name, value)
    values = pip_settings.settings()
    text = pip_settings.pip_conf(values)
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    assert parser["global"]["index-url"] == "https://user:word@two.example/simple"
    assert parser["global"]["find-links"].split() == [str(tmp_path / "absent"), "https://three.example"]
    assert "require-virtualenv" not in text
    assert pip_settings.paths(values) == [certificate]
