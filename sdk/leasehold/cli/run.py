"""``leasehold run FILE.py[:flow]``: run a flow of a file, even if its imports say `prefect`."""

from __future__ import annotations

import ast
import collections
import contextlib
import importlib.util
import json
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leasehold.cli.session import Session  # noqa: TC001 - typer reads the annotations
from leasehold.exceptions import (
    InvalidTagError,
    LeaseholdError,
    LimitExistsError,
    LimitNotFoundError,
    OptionError,
    ParameterTypeError,
    UnsupportedImportError,
    UnsupportedOptionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from leasehold.client import SyncClient
    from leasehold.flows import Flow


#: Errors that are about a line of the file, and say which.
_OF_THE_FILE: Final = (
    InvalidTagError,
    OptionError,
    UnsupportedImportError,
    UnsupportedOptionError,
)


def run(
    ctx: typer.Context,
    entrypoint: Annotated[
        str, typer.Argument(metavar="FILE.py[:FLOW]", help="The file, and which flow in it.")
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="NAME=VALUE",
            help="A parameter of the flow. VALUE is read as JSON where the flow takes what that "
            "gives ('[1, 2]', 'true', '12'); otherwise it is text.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="TAG=N",
            help="A limit for the time of this run. It is removed afterwards, unless the run is "
            "ended by SIGKILL: then it is removed with: leasehold limit delete TAG",
        ),
    ] = None,
) -> None:
    """Run a flow from a file, even if its imports still say prefect."""
    session: Session = ctx.obj
    path, wanted = _split(entrypoint)
    texts = dict(map(_pair, param or []))
    limits = {tag: _size(tag, text) for tag, text in map(_pair, limit or [])}
    _choose_profile(session)
    with _ending_in_order(), _limits(session, limits), _own_traceback(path):
        flow = _find(_load(path), path, wanted)
        _call(flow, _parameters(flow, texts))


def _split(entrypoint: str) -> tuple[Path, str | None]:
    file, separator, flow = entrypoint.rpartition(":")
    if not separator or flow.endswith(".py"):
        file, flow = entrypoint, ""
    path = Path(file).resolve()
    if not path.is_file():
        raise typer.BadParameter(f"There is no file {file}.", param_hint="FILE.py[:FLOW]")
    return path, flow or None


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE.")
    return name, value


def _parameters(flow: Flow[..., Any], texts: dict[str, str]) -> dict[str, Any]:
    """Read parameters: as JSON, or as text where the flow refuses that. It converts them further.

    A zip code is a number for JSON, and text for a flow that says so.
    """
    values = {name: _value(text) for name, text in texts.items()}
    try:
        flow.validated((), values)
    except ParameterTypeError as error:
        refused = texts.keys() & error.parameters
        return values | {name: texts[name] for name in refused}
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _size(tag: str, text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"The limit of {tag!r} must be a whole number; it is {text!r}.")
    return int(text)


def _choose_profile(session: Session) -> None:
    """Have the flow use the profile of the command line, which wins over all other sources."""
    if session.profile is None:
        return
    settings = session.settings()
    os.environ["PREFECT_PROFILE"] = session.profile
    os.environ["PREFECT_API_URL"] = settings.api_url or ""
    for name, secret in (
        ("PREFECT_API_KEY", settings.api_key),
        ("PREFECT_API_AUTH_STRING", settings.api_auth_string),
    ):
        os.environ[name] = secret or ""


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end it like Ctrl-C: bodies are interrupted, limits removed."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _limits(session: Session, limits: dict[str, int]) -> Iterator[None]:
    """Make limits, and remove them again."""
    if not limits:
        yield
        return
    made = []
    with session.connect() as client:
        try:
            for tag, size in limits.items():
                if _exists(client, tag):
                    raise LimitExistsError(
                        f"The tag {tag!r} has a limit already, which others may rely on. Leave "
                        f"--limit {tag}={size} out, or change it for all. If a run that was killed "
                        f"left it: leasehold limit delete {shlex.quote(tag)}",
                        name=tag,
                    )
                client.create_concurrency_limit(tag, size)
                made.append(tag)
            yield
        finally:
            for tag in made:
                client.delete_concurrency_limit_by_tag(tag)


def _exists(client: SyncClient, tag: str) -> bool:
    try:
        client.read_concurrency_limit_by_tag(tag)
    except LimitNotFoundError:
        return False
    return True


def _load(path: Path) -> ModuleType:
    """Import a file by its name, so that worker processes can import it too."""
    from leasehold import alias

    alias.install()
    sys.path.insert(0, str(path.parent))
    sys.argv = [str(path)]
    name = path.stem
    if name in sys.stdlib_module_names or name.partition(".")[0] in {"leasehold", "prefect"}:
        name = f"{name}_flow_file"  # not in the way of a module that others import
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LeaseholdError(f"{path} is no Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, path: Path, wanted: str | None) -> Flow[..., Any]:
    from leasehold.flows import Flow

    flows = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, Flow) and value.fn.__module__ == module.__name__
    }
    if wanted is not None:
        for name, flow in flows.items():
            if wanted in {name, flow.name}:
                return flow
    elif len(flows) == 1:
        return next(iter(flows.values()))
    else:
        for name in _started_by_main(path):
            if name in flows:
                return flows[name]
    if not flows:
        raise LeaseholdError(f"{path.name} has no function decorated with @flow.")
    names = ", ".join(flows)
    if wanted is not None:
        raise LeaseholdError(f"{path.name} has no flow {wanted!r}. It has: {names}.")
    raise LeaseholdError(
        f"{path.name} has several flows: {names}. Say which: leasehold run "
        f"{path.name}:{next(iter(flows))}"
    )


def _started_by_main(path: Path) -> Iterator[str]:
    """Give the names that the file calls when it is run as a script."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                    yield call.func.id


def _call(flow: Flow[..., Any], parameters: dict[str, Any]) -> None:
    """Run the flow, and raise what it ended with if that is no success."""
    import asyncio

    from leasehold.cli.progress import shown

    with shown():
        if flow.isgenerator:
            items: Any = flow(**parameters)
            if flow.isasync:
                asyncio.run(_consume(items))
            else:
                collections.deque(items, maxlen=0)
            return
        state: Any = flow(**parameters, return_state=True)
        if flow.isasync:
            state = asyncio.run(state)
    if not state.is_completed():
        state.outcome()


async def _consume(items: Any) -> None:
    async for _ in items:
        pass


@contextlib.contextmanager
def _own_traceback(path: Path) -> Iterator[None]:
    """Show errors of the file as Python would, without the frames of this program."""
    try:
        yield
    except LeaseholdError as error:
        line = _line_in(path, error)
        if isinstance(error, _OF_THE_FILE) and line is not None:
            error.args = (f"{path.name}, line {line}: {error}",)
            if isinstance(error, ImportError):  # which shows another attribute
                error.msg = str(error.args[0])
        raise
    except Exception as error:  # noqa: BLE001 - whatever the file raises is shown
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename != str(path):
            frames = frames.tb_next
        if frames is None and not isinstance(error, SyntaxError):  # which names its line itself
            frames = error.__traceback__
        traceback.print_exception(type(error), error, frames)
        raise typer.Exit(1) from None


def _line_in(path: Path, error: BaseException) -> int | None:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return lines[-1] if lines else None
