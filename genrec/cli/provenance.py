"""Where figures come from: versions, commit, time of day, memory."""

import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from genrec.version import __version__

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "datasets", "ibis-framework", "duckdb", "faiss-cpu")


def provenance() -> dict[str, Any]:
    """Return what is needed to repeat a run: versions of what it ran on, the commit, and when it ended."""
    return {
        "commit": commit(),
        "versions": {"genrec": __version__, "python": platform.python_version(), **package_versions()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on, those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the short commit of the checkout that genrec is imported from, marked `+` if it has changes; else None."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+" if changes else head


def peak_megabytes() -> int:
    """Return the largest resident memory of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, but bytes on macOS
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)
