"""The highest memory use of this process, where the system tells it."""

import sys
from pathlib import Path

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # see proc(5), clear_refs


def reset_peak() -> None:
    """Let the peak begin anew, where the system can: Linux."""
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
    except OSError:
        return


def peak_mb() -> float | None:
    """Peak in MB since `reset_peak` (Linux) or since the process began (macOS); None on Windows."""
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) / 1024, 1)
    except (OSError, StopIteration):
        pass
    if sys.platform != "darwin":
        return None
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
