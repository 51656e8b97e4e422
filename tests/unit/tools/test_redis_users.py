"""The chart's program that writes the users of the built-in Redis; tests/cluster runs it against an API server."""

import base64
import hashlib
import importlib.util
import io
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError

import pytest

from localfleet.kind import REPOSITORY

PATH = REPOSITORY / "charts" / "hotpool" / "files" / "redis_users.py"
FILES = {"operator-password": b"one\n", "dispatcher-password": b"two three>\r\n"}


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("redis_users", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with the files of an existing Secret."""
    monkeypatch.setenv("USERS", "user a on #OPERATOR\nuser b on #DISPATCHER\n")
    for folder in (program.FILES, program.TARGET.parent):
        (tmp_path / folder).mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / program.FILES / name).write_bytes(content)
    return tmp_path


def digest(password: bytes) -> str:
    return hashlib.sha256(password).hexdigest()


def test_passwords_of_an_existing_secret_are_read_as_the_operator_reads_them(program: ModuleType, root: Path) -> None:
    program.main(root)
    expected = f"user a on #{digest(b'one')}\nuser b on #{digest(b'two three>')}\n"
    assert (root / program.TARGET).read_text() == expected


@pytest.mark.parametrize("content", [b"\n", None], ids=["empty", "missing"])
def test_a_password_that_is_empty_or_missing_is_named(program: ModuleType, root: Path, content: bytes | None) -> None:
    file = root / program.FILES / "dispatcher-password"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(SystemExit, match=r"no users for Redis: .*dispatcher-password"):
        program.main(root)
    assert not (root / program.TARGET).exists()


class FakeApi:
    """A Secret with the operator's password."""

    def __init__(self) -> None:
        self.data = {"operator-password": base64.b64encode(b"known").decode()}
        self.sent: list[dict[str, Any]] = []

    def send(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if body:
            assert method == "PATCH"
            self.sent.append(body)
            self.data |= body["data"]
        return {"metadata": {"resourceVersion": "7"}, "data": self.data or None}


def test_only_missing_passwords_are_generated_and_only_in_the_version_that_was_read(program: ModuleType) -> None:
    api = FakeApi()
    found = program.from_api(api)
    (body,) = api.sent
    assert body["metadata"] == {"resourceVersion": "7"}
    assert body["data"].keys() == {"dispatcher-password"}
    assert found["operator-password"] == b"known"
    assert len(found["dispatcher-password"]) == 32
    assert program.from_api(api) == found
    assert len(api.sent) == 1


def test_a_refusal_of_the_api_server_is_shown_in_one_line(
    program: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_root: Path) -> None:
        raise HTTPError("https://api", 403, "Forbidden", Message(), io.BytesIO(b'{"message": "not yours"}'))

    monkeypatch.setattr(program, "Api", refuse)
    for name in FILES:
        (root / program.FILES / name).unlink()
    (root / program.FILES).rmdir()
    with pytest.raises(SystemExit, match=r"no users for Redis: HTTP Error 403: Forbidden .*not yours") as error:
        program.main(root)
    assert "\n" not in str(error.value)
