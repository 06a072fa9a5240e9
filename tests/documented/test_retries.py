"""Retries. Numbers, lists, backoff, jitter, conditions: tests/authoring/test_task_options."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from leasehold import flow, task
from leasehold.exceptions import SettingsError
from leasehold.states import Failed

if TYPE_CHECKING:
    from pathlib import Path


class RefusedError(Exception):
    """An answer of a server."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@pytest.mark.parametrize(("status", "calls"), [(404, 1), (503, 3)])
def test_a_condition_may_look_at_what_was_raised(status: int, calls: int) -> None:
    made = []

    def worth_it(_: Any, run: Any, state: Any) -> bool:
        try:
            state.result()
        except RefusedError as error:
            return error.status >= 500
        return False

    @task(retries=2, retry_condition_fn=worth_it)
    def call() -> None:
        made.append(1)
        raise RefusedError(status)

    @flow
    def calling() -> Any:
        return [call(return_state=True)]

    with pytest.raises(RefusedError):
        calling()[0].result()
    assert len(made) == calls


def test_what_went_well_is_not_run_again_when_a_later_task_is_retried() -> None:
    calls: list[str] = []

    @task
    def steady() -> None:
        calls.append("steady")

    @task(retries=2, retry_delay_seconds=[0.01, 0.02])
    def moody() -> str:
        calls.append("moody")
        if calls.count("moody") < 3:
            raise OSError("not yet")
        return "done"

    @flow
    def both() -> str:
        steady()
        return moody()

    assert both() == "done"
    assert calls == ["steady", "moody", "moody", "moody"]


def test_a_task_that_returns_a_failed_state_is_retried_too() -> None:
    tries = []

    @task(retries=2)
    def gives_up() -> Any:
        tries.append(1)
        return Failed(message="no rows") if len(tries) < 3 else "rows"

    assert gives_up() == "rows"
    assert len(tries) == 3


@pytest.mark.parametrize("kind", ["TASKS", "TASK"])
def test_the_number_of_retries_may_be_set_for_all_tasks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    monkeypatch.setenv(f"PREFECT_{kind}_DEFAULT_RETRIES", "2")
    monkeypatch.setenv(f"PREFECT_{kind}_DEFAULT_RETRY_DELAY_SECONDS", "0.01, 0.02")
    monkeypatch.setenv("PREFECT_FLOWS_DEFAULT_RETRIES", "1")
    tries = []

    @task
    def moody() -> None:
        tries.append(1)
        raise OSError("never")

    @task(retries=0)
    def once() -> None:
        tries.append(1)
        raise OSError("never")

    @flow
    def run() -> None:
        moody()

    with caplog.at_level(logging.WARNING), pytest.raises(OSError, match="never"):
        run()
    assert len(tries) == 2 * 3
    assert "starts in 0.01 s" in caplog.text
    assert "starts in 0.02 s" in caplog.text
    tries.clear()
    with pytest.raises(OSError, match="never"):
        once()
    assert len(tries) == 1


def test_settings_may_stand_in_files_of_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.toml").write_text(
        "[tasks]\ndefault_retries = 4\ndefault_retry_delay_seconds = [1, 2.5]\n"
    )
    assert task(print).retries == 4
    assert [task(print).delays(failures) for failures in (1, 2, 3)] == [1, 2.5, 2.5]
    (tmp_path / ".env").write_text("OTHER=1\nexport PREFECT_TASKS_DEFAULT_RETRIES='3' # more\n")
    assert task(print).retries == 3
    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "2")
    assert task(print).retries == 2
    assert task(retries=1)(print).retries == 1


@pytest.mark.parametrize("value", ["-1", "many", "1.5"])
def test_a_setting_that_cannot_be_meant_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", value)
    with pytest.raises(SettingsError, match="PREFECT_TASKS_DEFAULT_RETRIES must be") as caught:
        task(print)
    assert caught.value.setting == "PREFECT_TASKS_DEFAULT_RETRIES"
    monkeypatch.delenv("PREFECT_TASKS_DEFAULT_RETRIES")
    monkeypatch.setenv("PREFECT_FLOW_DEFAULT_RETRY_DELAY_SECONDS", "soon")
    with pytest.raises(SettingsError, match="PREFECT_FLOW_DEFAULT_RETRY_DELAY_SECONDS"):
        flow(print)
