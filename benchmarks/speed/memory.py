"""Peak memory of one call, in a process of its own."""

import multiprocessing
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what resets a process's peak resident size, see proc(5)


def peak_memory_mb(prepare: Callable[..., Callable[[], Any]], *arguments: Any, device: str = "cpu") -> float:
    """Return how far one call's memory peak lies above what its process held before, in MB (10^6 bytes).

    A fresh process runs `call = prepare(*arguments)` and then `call()`. Libraries load and allocate at their first
    use; let `prepare` make a small call first, so that this is not counted.

    Args:
        prepare: A module-level function that returns the call to be measured.
        *arguments: For `prepare`; must be picklable.
        device: On `"cuda"` the memory that torch allocates there is measured instead.

    Raises:
        RuntimeError: If the process ends without a figure; its own error is printed above.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, torch.get_num_threads(), device, prepare, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(
            f"The process that measures the memory of `{prepare.__name__}` ended without a figure. See its error above."
        ) from None
    finally:
        process.join()


def _measure(sender: Any, threads: int, device: str, prepare: Callable[..., Callable[[], Any]], arguments: Any) -> None:
    torch.set_num_threads(threads)
    call = prepare(*arguments)
    peak = _cuda_peak_bytes(call, device) if torch.device(device).type == "cuda" else _resident_peak_bytes(call)
    sender.send(peak / 1e6)


def _cuda_peak_bytes(call: Callable[[], Any], device: str) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _resident_peak_bytes(call: Callable[[], Any]) -> int:
    """Return the growth of the peak; where it cannot be reset, the part above the peak so far."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        before = _lifetime_peak_bytes()
        call()
        return _lifetime_peak_bytes() - before
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found is not None, f"{STATUS} has no {field}"
    return int(found[1]) * 1024


def _lifetime_peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, but bytes on macOS
    return peak if sys.platform == "darwin" else peak * 1024
