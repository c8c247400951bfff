"""Do one call of ``base_upgrade_many.py``; print its seconds, those of CPU, bytes that it read and its peak memory.

A process of its own, without torch: memory is that of the call.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from loreg import connect
from loreg.baking.float_codec import read_tensor
from loreg.bases.model import read_model


def main() -> None:
    what, folder = sys.argv[1:]
    start, read = time.perf_counter(), _bytes_read()
    _CALLS[what](Path(folder))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = time.perf_counter() - start, usage.ru_utime + usage.ru_stime, _bytes_read() - read, _peak_memory()
    print(json.dumps(figures))


def _bytes_read() -> int:
    """Return the bytes that this process has read, wherever they came from; what is mapped is not among them."""
    return _number_in("io", "rchar")


def _peak_memory() -> int:
    return 1024 * _number_in("status", "VmHWM")


def _number_in(file: str, name: str) -> int:
    lines = Path("/proc/self", file).read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def _read_both(folder: Path) -> None:
    old, new = (read_model(folder / name) for name in ("old", "new"))
    pairs = ((old.tensors[name], new.tensors[name]) for name in old.tensors)
    total = sum(float(np.sum(np.square(read_tensor(*b) - read_tensor(*a), dtype=np.float64))) for a, b in pairs)
    assert total > 0


def _upgrade(folder: Path) -> None:
    with connect(home=folder / "home", author="bench") as registry:
        report = registry.upgrade_base(folder / "old", folder / "new")
        assert {str(adapter.verdict) for adapter in report.adapters} <= {"copy", "retrain"}


def _upgrade_by_digests(folder: Path) -> None:
    with connect(home=folder / "home", author="bench") as registry:
        digests = registry.bases.add(folder / "old").base.digest, registry.bases.add(folder / "new").base.digest
        registry.upgrade_base(*digests)


_CALLS = {"floor": _read_both, "upgrade": _upgrade, "digests": _upgrade_by_digests}

if __name__ == "__main__":
    main()
