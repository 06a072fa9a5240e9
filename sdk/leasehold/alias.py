"""Offering this package under the name `prefect`, for one process, where Prefect is not installed.

What we have is found under Prefect's module names. A module or name that only Prefect has gives an
error that names it: nothing is silently missing.
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

#: Prefect's modules, and ours that stand in for them.
_MODULES: Final = {
    "prefect": "leasehold",
    "prefect.client": "leasehold.client",
    "prefect.client.orchestration": "leasehold.client",
    "prefect.client.schemas": "leasehold.states",
    "prefect.client.schemas.objects": "leasehold.states",
    "prefect.concurrency": "leasehold.concurrency",
    "prefect.concurrency.asyncio": "leasehold.concurrency.asyncio",
    "prefect.concurrency.sync": "leasehold.concurrency.sync",
    "prefect.context": "leasehold.context",
    "prefect.exceptions": "leasehold.exceptions",
    "prefect.flows": "leasehold.flows",
    "prefect.futures": "leasehold.futures",
    "prefect.logging": "leasehold.logging",
    "prefect.logging.loggers": "leasehold.logging",
    "prefect.runtime": "leasehold.runtime",
    "prefect.runtime.deployment": "leasehold.runtime.deployment",
    "prefect.runtime.flow_run": "leasehold.runtime.flow_run",
    "prefect.runtime.task_run": "leasehold.runtime.task_run",
    "prefect.states": "leasehold.states",
    "prefect.task_runners": "leasehold.task_runners",
    "prefect.tasks": "leasehold.tasks",
    "prefect.utilities": "leasehold.annotations",
    "prefect.utilities.annotations": "leasehold.annotations",
}


def install() -> None:
    """Offer our modules as `prefect` in this process; does nothing twice."""
    if not is_installed():
        sys.meta_path.insert(0, _Finder())


def remove() -> None:
    """Take that back."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
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
        ours = importlib.import_module(_MODULES[module.__name__])

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
        module.__dict__["__all__"] = list(getattr(ours, "__all__", []))
        if module.__name__ == "prefect.concurrency":
            sys.modules[module.__name__] = ours


def _missing(name: str) -> UnsupportedImportError:
    return UnsupportedImportError(
        f"{name} is Prefect's, and leasehold has nothing in its place. Install Prefect to run "
        "this file, or take the part that needs it out.",
        feature=name,
    )
