"""What figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

import numba
import numpy as np
import torch


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
    }


def load_average() -> str:
    """What else the machine has to do, over one, five and fifteen minutes."""
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
