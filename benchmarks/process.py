"""CPU time and memory of processes, from /proc (Linux only)."""

from __future__ import annotations

from pathlib import Path


def cpu_s(pid: int) -> float:
    """Time that the threads of a process have been on a core, seconds, exact to nanoseconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def memory_bytes(pid: int) -> int:
    """Proportional set size: shared pages count by the share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no Pss for {pid}")
