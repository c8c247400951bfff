"""Seconds and memory of verifying and collecting, each in a process of its own that has the registry open already."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

_CHILD = """
import json, sys, time
from loreg import connect

def status(name):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[name].split()[0])

settings, verb, options = map(json.loads, sys.argv[1:])
with connect(**settings) as registry:
    registry.adapters(limit=1)
    before, began = status("VmRSS"), time.perf_counter()
    report = getattr(registry, verb)(**options)
    seconds, peak = time.perf_counter() - began, status("VmHWM")
    counts = {name: value for name in dir(report) if isinstance(value := getattr(report, name), int)}
    print(json.dumps([seconds, before, peak, counts]))
"""


@dataclass(frozen=True)
class Measured:
    """What one call took: seconds, memory before it and at its peak (kB), and the counts of its report."""

    seconds: float
    before: int
    peak: int
    counts: dict[str, int]


def measure(settings: dict[str, str], verb: str, **options: object) -> Measured:
    """Call a verb of the registry with these settings."""
    command = [sys.executable, "-c", _CHILD, *map(json.dumps, (settings, verb, options))]
    return Measured(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
