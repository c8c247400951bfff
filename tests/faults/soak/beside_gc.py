"""16 pushers beside collectors that never pause: ``python -m faults.soak.beside_gc``; nothing may be lost.

Half of the pushers reach catalog and store themselves, half go through a server. They push contents that others abandon
halfway, so that garbage lies in the store that is about to be used. The collectors wait for no grace, or for a minute:
far less than a push takes, which is the worst that can be asked of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from deployments import Deployment
from faults.checker import faults, look
from faults.soak.client import write_adapter
from faults.soak.journal import Journal, read
from faults.soak.run import LOREG, be_alone
from loreg.errors import LoregError, NotFoundError
from loreg.registry import connect
from loreg.storage import Blob
from services import Restartable, restartable_postgres, restartable_s3

PUSHERS, COLLECTORS, CONTENTS = 16, 2, 24
_GRACES = ("0h", "0h", "1m")


def push_until(number: int, room: Path, deadline: float) -> None:
    """Push, abandon, pull and delete, with contents that all pushers share, until the deadline."""
    drawn, journal = random.Random(number), Journal(room / f"{number}.jsonl")
    folder = room / f"pusher-{number}"
    with connect(author=f"pusher-{number}") as registry:
        while time.time() < deadline:
            content = drawn.randrange(CONTENTS)
            files = write_adapter(folder, content, f"{content} {drawn.randrange(50)}")
            if drawn.random() < 0.4:  # a push that is abandoned before it commits
                for path, sha256 in files.items():
                    with contextlib.suppress(LoregError):
                        registry.context.store.put(Blob(sha256, (folder / path).stat().st_size), folder / path)
                continue
            name = f"soak/{number}-{drawn.randrange(10)}"
            try:
                pushed = registry.push(folder, name).version
                journal.write("push", ref=pushed.ref, digest=pushed.digest)
            except LoregError as error:
                journal.write("push", error.code, str(error))
                continue
            if drawn.random() < 0.3:
                try:
                    with tempfile.TemporaryDirectory(dir=room) as out:
                        registry.pull(pushed.ref, Path(out) / "pulled")
                    journal.write("pull", ref=pushed.ref)
                except LoregError as error:
                    journal.write("pull", error.code, str(error))


def collect_until(number: int, room: Path, deadline: float) -> None:
    """Collect without a pause until the deadline."""
    drawn, journal = random.Random(-number), Journal(room / f"gc-{number}.jsonl")
    with connect(author="gc") as registry:
        while time.time() < deadline:
            try:
                report = registry.gc(grace=drawn.choice(_GRACES))
                journal.write("gc", removed=report.removed)
            except LoregError as error:
                journal.write("gc", error.code, str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status is 1 if a version that was acknowledged lacks anything."""
    parser = argparse.ArgumentParser(prog="faults.soak.beside_gc", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--port", type=int, default=8477, help="where the server listens")
    asked = parser.parse_args(arguments)
    be_alone()
    with tempfile.TemporaryDirectory(prefix="loreg-gc-soak-") as name, contextlib.ExitStack() as stack:
        room = Path(name)
        url, _ = stack.enter_context(restartable_postgres())
        s3, _ = stack.enter_context(restartable_s3())
        deployment = Deployment(url, f"s3://{s3.bucket}/soak", s3.endpoint)
        environment = {**os.environ, **deployment.environment, "LOREG_HOME": str(room / "home"), "OMP_NUM_THREADS": "1"}
        subprocess.run([LOREG, "db", "upgrade"], env=environment, check=True, stdout=subprocess.DEVNULL)
        endpoint = f"http://127.0.0.1:{asked.port}"
        answers: Callable[[], bool] = lambda: httpx.get(f"{endpoint}/healthz").is_success  # noqa: E731
        server = Restartable([LOREG, "serve", "--port", str(asked.port)], answers, env=environment)
        stack.callback(server.kill)
        deadline = time.time() + 60 * asked.minutes
        through = {key: value for key, value in environment.items() if not key.startswith("LOREG_")}
        through |= {"LOREG_ENDPOINT": endpoint, "LOREG_HOME": str(room / "client")}
        processes = [
            _start("push", number, room, deadline, environment if number % 2 else through) for number in range(PUSHERS)
        ] + [_start("gc", number, room, deadline, environment) for number in range(COLLECTORS)]
        for process in processes:
            process.wait()
        sentences = [f"a process ended with {process.returncode}" for process in processes if process.returncode]
        operations = read(room)
        where = (deployment.database_url, deployment.storage_url, deployment.storage_endpoint)
        sentences += faults(look(*where))
        with connect(**deployment.settings, author="ada") as registry:
            sentences += [f"{damage.kind}: {damage.sha256}" for damage in registry.verify(read_data=True).damages]
            acknowledged = {operation.answer["ref"] for operation in operations if operation.answer.get("digest")}
            for ref in acknowledged:
                try:
                    registry.show(ref)
                except NotFoundError as error:
                    sentences.append(str(error))
    done = Counter(operation.kind for operation in operations if not operation.error)
    failed = Counter(f"{operation.kind}: {operation.error}" for operation in operations if operation.error)
    removed = sum(operation.answer.get("removed", 0) for operation in operations)
    print(f"{asked.minutes:g} minutes, {PUSHERS} pushers, {COLLECTORS} collectors: {dict(done)}, failed {dict(failed)}")
    print(f"  {len(acknowledged)} versions acknowledged, {removed} blobs collected meanwhile")
    print(*(f"  {sentence}" for sentence in sentences), sep="\n", end="\n" if sentences else "")
    print(f"lost: {len(sentences)}")
    return int(bool(sentences))


def _start(kind: str, number: int, room: Path, deadline: float, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    code = f"from faults.soak.beside_gc import *; {'push' if kind == 'push' else 'collect'}_until({number}, "
    code += f"Path({str(room)!r}), {deadline})"
    return subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=room)


if __name__ == "__main__":
    sys.exit(main())
