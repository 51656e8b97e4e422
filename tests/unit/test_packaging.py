"""What packaging/ says must fit the program and the repository (behaviour A10, A11)."""

import re
import shlex
from pathlib import Path
from typing import Any

from typer.main import get_command

from hotpool_agent.cli import app
from hotpool_agent.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


def unit() -> dict[str, str]:
    """Key → value of the unit; each key stands once."""
    lines = (PACKAGING / "hotpool-agent.service").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if re.match(r"[A-Z]\w*=", line)]
    assert len({key for key, _ in pairs}) == len(pairs)
    return {line[0]: line[1] for line in pairs}


def options_of_run() -> set[str]:
    command: Any = get_command(app)
    return {option for parameter in command.commands["run"].params for option in parameter.opts}


def test_a11_the_unit_starts_the_program_and_leaves_services_alone() -> None:
    said = unit()
    program, verb, *words = shlex.split(said["ExecStart"])
    assert (Path(program).name, verb) == ("hotpool-agent", "run")
    assert {word for word in words if word.startswith("-")} <= options_of_run()
    assert (said["KillMode"], said["Restart"], said["OOMPolicy"]) == ("process", "always", "continue")
    assert said["Environment"] == f"HOTPOOL_AGENT_STATE_DIR=%S/{said['StateDirectory']}"
    # Their folders would go with the agent, while services live on.
    assert not {"PrivateTmp", "RuntimeDirectory", "DynamicUser"} & set(said)


def test_a11_the_unit_waits_longer_than_an_orderly_end_takes() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    longest = defaults["announce_seconds"] + 1 + defaults["stop_seconds"] + 5 + 2 * defaults["request_seconds"]
    assert int(unit()["TimeoutStopSec"]) > 2 * longest


def test_a10_reload_of_the_unit_is_sighup() -> None:
    assert unit()["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]


def test_a11_the_image_copies_what_exists_and_is_not_root() -> None:
    lines = (PACKAGING / "Containerfile.agent").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert all((ROOT / name).exists() for names in copied for name in names)
    assert all("/" not in line.split()[1] for line in lines if line.startswith("FROM "))
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert all(user.split(":")[0] not in {"0", "root"} for user in users)
    assert any("--require-hashes" in line and "--constraint requirements.lock" in line for line in lines)
