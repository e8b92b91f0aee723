"""What a figure was measured on: versions, commit, processor, graphics card."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

from genrec.cli.provenance import commit, package_versions

__all__ = ["commit", "describe_machine", "versions"]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that figures depend on, those that are installed."""
    return {"python": platform.python_version(), **package_versions()}


def describe_machine(device: str, threads: int) -> dict[str, Any]:
    """Return the processor, its cores, the threads in use, the memory and, on CUDA, the card.

    Example:
        >>> describe_machine("cpu", threads=1)["threads"]
        1
    """
    machine: dict[str, Any] = {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "memory_gb": round(_memory_bytes() / 1e9, 1),
    }
    if torch.device(device).type == "cuda":
        card = torch.cuda.get_device_properties(torch.device(device))
        machine |= {"gpu": card.name, "gpu_memory_gb": round(card.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    return machine


def processor_name() -> str:
    """Return the processor's name as the system gives it."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
