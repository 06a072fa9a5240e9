"""`get_client()`: the administration of limits, for sync and for async callers.

The operations are written once, as plans (see `limits`). Here each gets its two faces: a method
that runs the plan and returns, and one that runs it and is awaited.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import anyio
import tenacity

from leasehold.client import convert, doctor
from leasehold.client.http import AsyncApi, SyncApi
from leasehold.client.limits import Limits
from leasehold.client.retries import Tries
from leasehold.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from typing_extensions import Self

    from leasehold.client.plans import Plan
    from leasehold.client.wire import Reply, Request
    from leasehold.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    plan: Callable[Concatenate[Limits, P], Plan[T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    @functools.wraps(plan)
    def method(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(plan(self._limits, *args, **kwargs))

    return method


def _awaitable(
    plan: Callable[Concatenate[Limits, P], Plan[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @functools.wraps(plan)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(plan(self._limits, *args, **kwargs))

    return method


class SyncClient:
    """Limits on the server, or on the embedded ledger, for callers without an event loop.

    Example:
        >>> with get_client(sync_client=True) as client:
        ...     client.create_concurrency_limit("database", 3)

    Args:
        settings: where the server is, and how patient to be.

    Raises:
        ServerUnreachableError: from each method, when the server does not answer in time.
        NotAPrefectServerError: from each method, likewise; and so are the next two.
        ServerTooOldError: the server cannot hold these limits.
        AuthenticationError: the server refuses our key.
        LedgerError: from each method, when the embedded ledger's file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = settings.address
        self._api = SyncApi(settings)
        self._limits = Limits(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    read_server = _blocking(Limits.read_server)

    create_concurrency_limit = _blocking(Limits.create_concurrency_limit)
    read_concurrency_limit_by_tag = _blocking(Limits.read_concurrency_limit_by_tag)
    read_concurrency_limits = _blocking(Limits.read_concurrency_limits)
    read_concurrency_limit_use = _blocking(Limits.read_concurrency_limit_use)
    read_concurrency_limit_uses = _blocking(Limits.read_concurrency_limit_uses)
    read_concurrency_limit_holders = _blocking(Limits.read_concurrency_limit_holders)
    revoke_concurrency_limit_slot = _blocking(Limits.revoke_concurrency_limit_slot)
    update_concurrency_limit = _blocking(Limits.update_concurrency_limit)
    reset_concurrency_limit_by_tag = _blocking(Limits.reset_concurrency_limit_by_tag)
    delete_concurrency_limit_by_tag = _blocking(Limits.delete_concurrency_limit_by_tag)
    settle_concurrency_limit_counter = _blocking(Limits.settle_concurrency_limit_counter)

    examine_limits = _blocking(doctor.examine_limits)
    mend_limit = _blocking(doctor.mend_limit)
    read_unconverted_limits = _blocking(convert.read_unconverted_limits)
    convert_limits = _blocking(convert.convert_limits)

    create_global_concurrency_limit = _blocking(Limits.create_global_concurrency_limit)
    read_global_concurrency_limit_by_name = _blocking(Limits.read_global_concurrency_limit_by_name)
    read_global_concurrency_limits = _blocking(Limits.read_global_concurrency_limits)
    update_global_concurrency_limit = _blocking(Limits.update_global_concurrency_limit)
    upsert_global_concurrency_limit_by_name = _blocking(
        Limits.upsert_global_concurrency_limit_by_name
    )
    delete_global_concurrency_limit_by_name = _blocking(
        Limits.delete_global_concurrency_limit_by_name
    )

    def _run(self, plan: Plan[T]) -> T:
        with contextlib.closing(plan):
            try:
                request = next(plan)
                while True:
                    request = plan.send(self._send(request))
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]

    def _send(self, request: Request) -> Reply:
        tries = Tries(self.settings)

        def send() -> Reply:
            with tries:
                seconds = tries.seconds_left()
                return tries.read(self._api.send(request, timeout_seconds=seconds))

        return tenacity.Retrying(**tries.policy())(send)


class AsyncClient:
    """The same as `SyncClient`; each method is awaited.

    Example:
        >>> async with get_client() as client:
        ...     await client.create_concurrency_limit("database", 3)
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = settings.address
        self._api = AsyncApi(settings)
        self._limits = Limits(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    read_server = _awaitable(Limits.read_server)

    create_concurrency_limit = _awaitable(Limits.create_concurrency_limit)
    read_concurrency_limit_by_tag = _awaitable(Limits.read_concurrency_limit_by_tag)
    read_concurrency_limits = _awaitable(Limits.read_concurrency_limits)
    read_concurrency_limit_use = _awaitable(Limits.read_concurrency_limit_use)
    read_concurrency_limit_uses = _awaitable(Limits.read_concurrency_limit_uses)
    read_concurrency_limit_holders = _awaitable(Limits.read_concurrency_limit_holders)
    revoke_concurrency_limit_slot = _awaitable(Limits.revoke_concurrency_limit_slot)
    update_concurrency_limit = _awaitable(Limits.update_concurrency_limit)
    reset_concurrency_limit_by_tag = _awaitable(Limits.reset_concurrency_limit_by_tag)
    delete_concurrency_limit_by_tag = _awaitable(Limits.delete_concurrency_limit_by_tag)
    settle_concurrency_limit_counter = _awaitable(Limits.settle_concurrency_limit_counter)

    examine_limits = _awaitable(doctor.examine_limits)
    mend_limit = _awaitable(doctor.mend_limit)
    read_unconverted_limits = _awaitable(convert.read_unconverted_limits)
    convert_limits = _awaitable(convert.convert_limits)

    create_global_concurrency_limit = _awaitable(Limits.create_global_concurrency_limit)
    read_global_concurrency_limit_by_name = _awaitable(Limits.read_global_concurrency_limit_by_name)
    read_global_concurrency_limits = _awaitable(Limits.read_global_concurrency_limits)
    update_global_concurrency_limit = _awaitable(Limits.update_global_concurrency_limit)
    upsert_global_concurrency_limit_by_name = _awaitable(
        Limits.upsert_global_concurrency_limit_by_name
    )
    delete_global_concurrency_limit_by_name = _awaitable(
        Limits.delete_global_concurrency_limit_by_name
    )

    async def _run(self, plan: Plan[T]) -> T:
        with contextlib.closing(plan):
            try:
                request = next(plan)
                while True:
                    request = plan.send(await self._send(request))
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]

    async def _send(self, request: Request) -> Reply:
        tries = Tries(self.settings)

        async def send() -> Reply:
            with tries:
                seconds = tries.seconds_left()
                return tries.read(await self._api.send(request, timeout_seconds=seconds))

        return await tenacity.AsyncRetrying(**tries.policy(), sleep=anyio.sleep)(send)


@overload
def get_client(
    *, sync_client: Literal[False] = False, settings: Settings | None = None
) -> AsyncClient: ...


@overload
def get_client(*, sync_client: Literal[True], settings: Settings | None = None) -> SyncClient: ...


def get_client(
    *, sync_client: bool = False, settings: Settings | None = None
) -> AsyncClient | SyncClient:
    """Open the administration of limits, on the server or on the embedded ledger.

    Example:
        >>> async with get_client() as client:
        ...     await client.create_concurrency_limit("database", 3)
        >>> with get_client(sync_client=True) as client:
        ...     client.read_concurrency_limit_by_tag("database").concurrency_limit
        3

    Args:
        sync_client: give the client whose methods are not awaited.
        settings: where the server is; None reads the environment and the active profile now.

    Raises:
        SettingsError: a setting or a profile that cannot be used, named.
    """
    settings = load() if settings is None else settings
    return SyncClient(settings) if sync_client else AsyncClient(settings)
