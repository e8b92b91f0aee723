"""Lazy package exports: a name is imported when it is first used, so that importing genrec stays cheap.

A package's `__init__` says where its public names live, `__getattr__, __dir__, __all__ = lazy_exports(...)`; reading it
shows the whole package.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def lazy_exports(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return a package's `__getattr__`, `__dir__` and `__all__`.

    Args:
        package: The package's `__name__`.
        homes: Module name -> the public names it defines.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name in home_of:
            return getattr(importlib.import_module(home_of[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(home_of), sorted(home_of)


def started_as_command() -> bool:
    """Say whether this process is `genrec ...` or `python -m genrec ...`, whose `--help` must not wait for torch."""
    if sys.argv[0] == "-m":
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] == "genrec"
    return Path(sys.argv[0]).stem == "genrec"
