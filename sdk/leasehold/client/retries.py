"""Which failures of a request pass, and how often it is sent again. No I/O.

- Passing: no reply, 429 and 5xx. SQLite servers answer 503 on any call (PROTOCOL.md).
- All tries together get `Settings.unreachable_seconds`; a hanging try is cut so that they fit.
- A request that may have been carried out is sent again too: every operation of `limits` either
  may be repeated without harm, or looks at `Reply.repeated`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

import tenacity

from leasehold.client.server import refused
from leasehold.client.wire import Reply, is_passing
from leasehold.exceptions import ServerUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from leasehold.settings import Settings

log = logging.getLogger("leasehold.client")

_TOO_MANY: Final = 429

#: A try with less time than this is not worth its while, even at the end of our patience.
_SHORTEST_TRY_SECONDS: Final = 0.5

#: Shorter than this it is a hiccup, and worth no warning.
_HICCUP_SECONDS: Final = 0.5

_BACKOFF: Final = tenacity.wait_exponential(multiplier=0.1, max=1) + tenacity.wait_random(0, 0.1)


class Tries:
    """All tries of one request.

    Example:
        >>> def send_patiently(api, request):
        ...     tries = Tries(api.settings)
        ...     def send():
        ...         with tries:
        ...             return tries.read(api.send(request, timeout_seconds=tries.seconds_left()))
        ...     return tenacity.Retrying(**tries.policy())(send)

    Args:
        settings: where the server is, and how patient to be.
        clock: seconds that only ever grow.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._started = clock()
        self._advice_seconds = 0.0
        self._repeated = False
        self._warned = False

    def policy(self) -> dict[str, Any]:
        """Say when tenacity tries again, for both its sync and its async form."""
        return {
            "retry": tenacity.retry_if_exception_type(ServerUnreachableError),
            "stop": lambda _: self._left() <= 0,
            "wait": self._pause,
            "before_sleep": self._warn,
            "retry_error_callback": self._give_up,
        }

    def seconds_left(self) -> float:
        """The most that the next try may take, in seconds."""
        left = max(self._left(), _SHORTEST_TRY_SECONDS)
        return min(left, self._settings.request_timeout_seconds)

    def read(self, reply: Reply) -> Reply:
        """Pass on a reply that is worth reading.

        Raises:
            AuthenticationError: the server refuses our key.
            ServerUnreachableError: asking again may give another answer.
        """
        address = self._settings.address
        if reply.status in {401, 403}:
            raise refused(address, reply.status)
        if is_passing(reply.status):
            self._advice_seconds = reply.retry_after or 0.0
            raise ServerUnreachableError(
                f"The server at {address} answers HTTP {reply.status}.",
                address=address,
                delivered=reply.status != _TOO_MANY,
            )
        return reply._replace(repeated=self._repeated)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: object, __: object) -> None:
        if isinstance(error, ServerUnreachableError):
            self._repeated |= error.delivered

    def _left(self) -> float:
        return self._settings.unreachable_seconds - (self._clock() - self._started)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        pause = max(_BACKOFF(state), self._advice_seconds)
        self._advice_seconds = 0.0
        return max(min(pause, self._left()), 0.0)

    def _warn(self, state: tenacity.RetryCallState) -> None:
        if self._warned or self._clock() - self._started < _HICCUP_SECONDS:
            return
        self._warned = True
        log.warning("%s Trying for %.0f s more.", _failure(state), max(self._left(), 0))

    def _give_up(self, state: tenacity.RetryCallState) -> NoReturn:
        failure = _failure(state)
        raise ServerUnreachableError(
            f"{failure} Tried for {self._settings.unreachable_seconds:.0f} s. The address comes "
            f"from: {self._settings.source}.",
            address=self._settings.address,
            delivered=self._repeated,
        ) from failure


def _failure(state: tenacity.RetryCallState) -> BaseException:
    failure = state.outcome.exception() if state.outcome else None
    assert failure is not None
    return failure
