"""Preview merges of stored adapters: how long one question takes once they are reduced.

``python benchmarks/merge_preview.py`` pushes adapters of SmolLM2-135M's shapes (210 modules) to a registry of its own,
and asks with other weights each time. The rank of the result is that of the sources.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from shapes import SMOLLM2, write

from loreg.registry import Registry, connect

ROUNDS = 20


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as name:
        folder = Path(name)
        os.environ["LOREG_HOME"] = f"{folder}/home"  # where what was reduced is kept
        with connect(database_url=f"sqlite:///{folder}/catalog.db", storage_url=str(folder / "store")) as registry:
            print("sources    first    median   of processors   exact\n")
            for count, rank in ((2, 16), (4, 8), (4, 64)):
                refs = [
                    str(registry.push(write(folder / f"{i}-{rank}", SMOLLM2, rank, i), f"a{i}-{rank}").version.ref)
                    for i in range(count)
                ]
                measure(registry, refs, rank)


def measure(registry: Registry, refs: list[str], rank: int) -> None:
    walls, works = [], []
    for i in range(ROUNDS + 1):
        wall, work = time.perf_counter(), time.process_time()
        preview = registry.preview_merge(refs, [0.5 + 0.01 * i, *[0.3] * (len(refs) - 1)], rank=rank)
        walls.append(1000 * (time.perf_counter() - wall))
        works.append(1000 * (time.process_time() - work))
    print(
        f"{len(refs)} × rank {rank:<3} {walls[0]:6.0f} ms {statistics.median(walls[1:]):6.1f} ms "
        f"{statistics.median(works[1:]):9.1f} ms   {preview.exact}",
        flush=True,
    )


if __name__ == "__main__":
    main()
