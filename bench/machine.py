"""What the measurements were made on. A number without its machine says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from sidecar import __version__

_OPENCODE = Path(__file__).parents[1] / "deploy/opencode/node_modules/.bin/opencode"


@dataclass(frozen=True, slots=True)
class Machine:
    """Hardware and the versions that matter, each as it is printed."""

    cpu: str
    memory: str
    system: str
    python: str
    opencode: str
    sidecar: str

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.memory} memory, {self.system}, Python {self.python}, "
            f"opencode {self.opencode}, sidecar {self.sidecar}"
        )


def describe() -> Machine:
    """Return the machine this runs on. Raises FileNotFoundError when opencode is not installed."""
    # Cores this process may use: in a container the others are of no help.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        cpu=f"{_cpu_model()} ({cores} cores)",
        memory=f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        opencode=_opencode_version(),
        sidecar=__version__,
    )


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _opencode_version() -> str:
    answer = subprocess.run([_OPENCODE, "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.strip()
