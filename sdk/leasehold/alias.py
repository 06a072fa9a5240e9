"""Offering this package under the name `prefect`, for one process, where Prefect is not installed.

What we have is found under Prefect's module names. A module or name that only Prefect has gives an
error that names it: nothing is silently missing. So does one of the packages around it, as
`prefect_dask`. `prefect.__version__` is that of the newest Prefect whose names these are: files
compare it to decide which names to import.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, Final

from leasehold.exceptions import UnsupportedImportError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

#: The newest Prefect that this package is tested with.
PREFECT_VERSION: Final = "3.8.8"

#: Prefect's modules that are here, too, under the same name.
_MODULES: Final = frozenset(
    {
        "prefect",
        "prefect.cache_policies",
        "prefect.client",
        "prefect.client.orchestration",
        "prefect.client.schemas",
        "prefect.client.schemas.actions",
        "prefect.client.schemas.objects",
        "prefect.client.schemas.responses",
        "prefect.concurrency",
        "prefect.concurrency.asyncio",
        "prefect.concurrency.sync",
        "prefect.context",
        "prefect.exceptions",
        "prefect.flows",
        "prefect.futures",
        "prefect.logging",
        "prefect.logging.loggers",
        "prefect.runtime",
        "prefect.runtime.deployment",
        "prefect.runtime.flow_run",
        "prefect.runtime.task_run",
        "prefect.states",
        "prefect.task_runners",
        "prefect.tasks",
        "prefect.testing",
        "prefect.testing.utilities",
        "prefect.utilities",
        "prefect.utilities.annotations",
    }
)


def install() -> None:
    """Offer our modules as `prefect` in this process; does nothing twice."""
    if not is_installed():
        sys.meta_path.insert(0, _Finder())
        sys.meta_path.append(_Around())


def remove() -> None:
    """Take that back."""
    ours = (_Finder, _Around)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, ours)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "prefect"]:
        del sys.modules[name]


def is_installed() -> bool:
    """Whether our modules are offered as `prefect` in this process."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] != "prefect":
            return None
        if fullname not in _MODULES:
            raise _missing(fullname)
        return importlib.util.spec_from_loader(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        ours = importlib.import_module(f"leasehold{module.__name__.removeprefix('prefect')}")

        def find(name: str) -> Any:
            if f"{module.__name__}.{name}" in _MODULES:
                return importlib.import_module(f"{module.__name__}.{name}")
            try:
                return getattr(ours, name)
            except AttributeError:
                if name.startswith("__"):
                    raise
                raise _missing(f"{module.__name__}.{name}") from None

        module.__dict__["__getattr__"] = find
        if module.__name__ == "prefect":
            module.__dict__["__version__"] = PREFECT_VERSION
        module.__dict__["__all__"] = list(getattr(ours, "__all__", []))
        if module.__name__ == "prefect.concurrency":
            sys.modules[module.__name__] = ours


class _Around(importlib.abc.MetaPathFinder):
    """Is asked last: a module of the user's own may be called `prefect_helpers`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if not fullname.startswith("prefect_") or "." in fullname:
            return None
        raise UnsupportedImportError(
            f"{fullname} is not installed, and packages of this name work with Prefect alone. Use "
            "the library that it wraps in your tasks; for a task runner, take "
            "ThreadPoolTaskRunner or ProcessPoolTaskRunner.",
            feature=fullname,
        )


def _missing(name: str) -> UnsupportedImportError:
    return UnsupportedImportError(
        f"{name} is Prefect's, and leasehold has nothing in its place. Install Prefect to run "
        "this file, or take the part that needs it out.",
        feature=name,
    )
