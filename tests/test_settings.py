"""Where the server is: the environment, the active profile, or nowhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from leasehold.exceptions import SettingsError
from leasehold.settings import Settings, load

if TYPE_CHECKING:
    from pathlib import Path

PROFILES = """
active = "work"

[profiles.work]
PREFECT_API_URL = "https://work.example/api/"
PREFECT_API_KEY = "key-of-work"

[profiles.home]
PREFECT_API_URL = "http://127.0.0.1:4200/api"
"""


@pytest.fixture
def profiles(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "profiles.toml").write_text(PROFILES)
    return {"PREFECT_HOME": str(tmp_path)}


def test_without_an_address_the_embedded_ledger_serves(tmp_path: Path) -> None:
    settings = load({"PREFECT_HOME": str(tmp_path), "LEASEHOLD_HOME": str(tmp_path / "ours")})
    assert settings.api_url is None
    assert settings.ledger_path == tmp_path / "ours" / "ledger.db"
    assert str(settings.ledger_path) in settings.address


def test_the_active_profile_is_read(profiles: dict[str, str]) -> None:
    settings = load(profiles)
    assert settings.api_url == "https://work.example/api"
    assert settings.source == "profile 'work'"
    assert settings.api_key == "key-of-work"


def test_another_profile_can_be_chosen(profiles: dict[str, str]) -> None:
    settings = load({**profiles, "PREFECT_PROFILE": "home"})
    assert settings.api_url == "http://127.0.0.1:4200/api"
    assert settings.api_key is None


def test_the_environment_comes_before_the_profile(profiles: dict[str, str]) -> None:
    settings = load({**profiles, "PREFECT_API_URL": "http://127.0.0.1:1/api"})
    assert settings.api_url == "http://127.0.0.1:1/api"
    assert settings.source == "environment variable PREFECT_API_URL"


def test_an_empty_address_turns_that_of_the_profile_off(profiles: dict[str, str]) -> None:
    assert load({**profiles, "PREFECT_API_URL": ""}).api_url is None


def test_headers_are_json(tmp_path: Path) -> None:
    environ = {"PREFECT_HOME": str(tmp_path), "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Team": "a"}'}
    assert load(environ).custom_headers == {"X-Team": "a"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PREFECT_API_URL", "127.0.0.1:4200/api"),
        ("PREFECT_API_URL", "http://user:secret@host/api"),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", "X-Team: a"),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", '{"X-Team": 7}'),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", '["X-Team"]'),
        ("LEASEHOLD_REQUEST_TIMEOUT_SECONDS", "0"),
        ("LEASEHOLD_REQUEST_TIMEOUT_SECONDS", "nan"),
        ("LEASEHOLD_HANDOVER_SECONDS", "-1"),
        ("LEASEHOLD_POLL_SECONDS", "61"),
        ("LEASEHOLD_GUARD", "perhaps"),
        ("LEASEHOLD_POLL_SECONDS", "often"),
        ("LEASEHOLD_DIALECT", "klingon"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(variable: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=variable) as raised:
        load({"PREFECT_HOME": str(tmp_path), variable: value})
    assert raised.value.setting == variable
    assert "secret" not in str(raised.value)


def test_numbers_and_switches_are_read(tmp_path: Path) -> None:
    settings = load(
        {
            "PREFECT_HOME": str(tmp_path),
            "LEASEHOLD_OUTAGE_SECONDS": "inf",
            "LEASEHOLD_HANDOVER_SECONDS": " 0 ",
            "LEASEHOLD_POLL_SECONDS": "0.5",
            "LEASEHOLD_UNREACHABLE_SECONDS": "",
            "LEASEHOLD_GUARD": "0",
            "LEASEHOLD_DIALECT": "legacy",
        }
    )
    assert settings.outage_seconds == math.inf
    assert (settings.handover_seconds, settings.poll_seconds) == (0, 0.5)
    assert settings.unreachable_seconds == Settings().unreachable_seconds
    assert not settings.guard
    assert settings.dialect == "legacy"


def test_a_key_that_is_no_text_is_named_but_not_shown(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(
        'active = "x"\n[profiles.x]\nPREFECT_API_KEY = 12345678\n'
    )
    with pytest.raises(SettingsError, match=r"PREFECT_API_KEY .* must be text") as raised:
        load({"PREFECT_HOME": str(tmp_path)})
    assert "12345678" not in str(raised.value)


def test_a_profile_that_is_not_there_is_named(profiles: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="'moon'"):
        load({**profiles, "PREFECT_PROFILE": "moon"})


def test_a_profiles_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text("active = [")
    with pytest.raises(SettingsError, match=r"profiles\.toml"):
        load({"PREFECT_HOME": str(tmp_path)})


def test_secrets_are_not_shown(profiles: dict[str, str]) -> None:
    settings = load({**profiles, "PREFECT_API_AUTH_STRING": "user:password-of-mine"})
    assert "key-of-work" not in repr(settings)
    assert "password-of-mine" not in repr(settings)


def test_files_of_the_working_directory_come_before_the_profile(
    profiles: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", profiles["PREFECT_HOME"])
    monkeypatch.delenv("LEASEHOLD_HOME", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert load().source == "profile 'work'"
    (folder / "pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://127.0.0.1:1/api"\n')
    assert load().api_url == "http://127.0.0.1:1/api"
    (folder / "prefect.toml").write_text(
        '[api]\nurl = "http://127.0.0.1:2/api/"\n[client]\ncustom_headers = {X-Team = "a"}\n'
    )
    settings = load()
    assert settings.api_url == "http://127.0.0.1:2/api"
    assert settings.source == "the file prefect.toml in the working directory"
    assert settings.custom_headers == {"X-Team": "a"}
    assert settings.api_key is not None  # the profile's: no file names another one
    (folder / ".env").write_text(
        "# local\nPREFECT_API_URL=http://127.0.0.1:3/api\nLEASEHOLD_HOME=/x\n"
    )
    settings = load()
    assert (settings.api_url, str(settings.home)) == ("http://127.0.0.1:3/api", "/x")
    assert settings.source == "the file .env in the working directory"


def test_a_file_of_the_working_directory_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").mkdir()  # a virtual environment, say
    assert load().api_url is None
    (tmp_path / "prefect.toml").write_text("[api\n")
    with pytest.raises(SettingsError, match=r"prefect\.toml cannot be read"):
        load()
