"""Mixed load and random kills, then the checker: ``python -m faults.soak`` with ``tests`` in PYTHONPATH."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import psycopg

from deployments import Deployment
from faults.checker import faults, look
from faults.soak.client import write_base
from faults.soak.journal import WRONG, figures, lost, read
from services import ACCESS_KEY, SECRET_KEY, Restartable, restartable_postgres, restartable_s3

LOREG = str(Path(sys.executable).with_name("loreg"))
VICTIMS = ("database", "server", "store", "worker")
_PAUSES = (3.0, 12.0)  # seconds between two kills, at least and at most
_AWAY = 2.0  # seconds that what was killed stays away, at most
_SETTLING = 120.0  # seconds in which the jobs that were asked for have to end


class Soak:
    """A registry on real servers, each of which may be killed and comes back."""

    def __init__(self, room: Path, port: int, seed: int, victims: Sequence[str], stack: contextlib.ExitStack) -> None:
        self._drawn, self._victims = random.Random(seed), victims
        url, postgres = stack.enter_context(restartable_postgres())
        s3, store = stack.enter_context(restartable_s3())
        self.deployment = Deployment(url, f"s3://{s3.bucket}/soak", s3.endpoint)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.token = "lrg_" + secrets.token_urlsafe(32)
        self.environment = {**os.environ, **self.deployment.environment, "LOREG_HOME": str(room / "home")}
        subprocess.run([LOREG, "db", "upgrade"], env=self.environment, check=True, stdout=subprocess.DEVNULL)
        write_base(room / "bases" / "base")
        environment = {**self.environment, "LOREG_ADMIN_TOKEN": self.token, "OMP_NUM_THREADS": "1"}
        serve = [LOREG, "serve", "--port", str(port), "--require-tokens"]
        work = [LOREG, "worker", "--bases", str(room / "bases"), "--models", str(room / "models")]
        answers: Callable[[], bool] = lambda: httpx.get(f"{self.endpoint}/healthz").is_success  # noqa: E731
        self.processes = {
            "database": postgres,
            "store": store,
            "server": Restartable(serve, answers, env=environment),
            "worker": Restartable(work, lambda: True, env=environment),
        }
        stack.callback(self.processes["server"].kill)
        stack.callback(self.processes["worker"].kill)
        self.kills: Counter[str] = Counter()
        self.gave_up: Counter[str] = Counter()

    def disturb(self, deadline: float) -> None:
        """Kill one at a time and start it again, until the deadline."""
        while True:
            pause = min(self._drawn.uniform(*_PAUSES), deadline - time.time())
            victim, away = self._drawn.choice(self._victims), self._drawn.uniform(0, _AWAY)
            if pause <= 0:
                return
            time.sleep(pause)
            self.revive()
            self.processes[victim].kill()
            self.kills[victim] += 1
            time.sleep(away)
            self._start(victim)

    def revive(self) -> None:
        """Start again what ended by itself, as compose does."""
        for name, process in self.processes.items():
            if process.process.poll() is not None:
                self.gave_up[name] += 1
                self._start(name)

    def _start(self, name: str) -> None:
        """PostgreSQL refuses to begin while a process of the one before lives on: so it is asked again."""
        for _ in range(10):
            with contextlib.suppress(RuntimeError):
                self.processes[name].start()
                return
            time.sleep(0.5)
        raise RuntimeError(f"the {name} does not start any more")

    def settle(self) -> None:
        """Leave everything alone until every job has ended."""
        query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
        deadline = time.monotonic() + _SETTLING
        while time.monotonic() < deadline:
            self.revive()
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self.deployment.database_url) as connection,
            ):
                row = connection.execute(query).fetchone()
                if row == (0,):
                    return
            time.sleep(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status is 1 if anything that was acknowledged is lost, or anything is half."""
    asked = _parse(arguments)
    seed = asked.seed if asked.seed is not None else secrets.randbelow(1_000_000)
    print(f"seed {seed}, {asked.minutes:g} minutes, {asked.clients} clients", flush=True)
    be_alone()
    with tempfile.TemporaryDirectory(prefix="loreg-soak-") as name, contextlib.ExitStack() as stack:
        room = Path(name)
        soak = Soak(room, asked.port, seed, asked.kill, stack)
        deadline = time.time() + 60 * asked.minutes
        clients = [_client(number, seed, room, deadline, soak) for number in range(asked.clients)]
        soak.disturb(deadline)
        for client in clients:
            client.wait()
        soak.settle()
        operations = read(room)
        where = (soak.deployment.database_url, soak.deployment.storage_url, soak.deployment.storage_endpoint)
        seen = look(*where)
        sentences = [*faults(seen), *lost(operations, seen)]
        sentences += [
            f"pull: {operation.error}: {operation.message}"
            for operation in operations
            if operation.kind == "pull" and operation.error in WRONG
        ]
        sentences += [f"the {name} ended by itself, {count} ×" for name, count in soak.gave_up.items()]
        sentences += [f"a client ended with {client.returncode}" for client in clients if client.returncode]
    print(*figures(operations), sep="\n")
    print(f"  kills: {_counts(soak.kills)}; ended by themselves: {_counts(soak.gave_up)}")
    print(f"  {len(seen['versions'])} versions, {len(seen.stored)} blobs, {len(seen['jobs'])} jobs")
    print(*(f"  {fault}" for fault in sentences), sep="\n", end="\n" if sentences else "")
    print(f"lost, half or ended by itself: {len(sentences)}")
    return int(bool(sentences))


def _client(number: int, seed: int, room: Path, deadline: float, soak: Soak) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "LOREG_ENDPOINT": soak.endpoint, "LOREG_TOKEN": soak.token}
    environment |= {"LOREG_HOME": str(room / f"home-{number}"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "faults.soak.client", str(number), str(seed), str(room), str(deadline)]
    return subprocess.Popen(command, env=environment, cwd=room, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def be_alone() -> None:
    """Let nothing of the person who runs this get in."""
    for name in [name for name in os.environ if name.startswith(("LOREG_", "AWS_", "HF_"))]:
        del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in sorted(counts.items())) or "none"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults.soak", description="Mixed load and random kills, then the checker.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="default: drawn, and printed")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--kill", nargs="+", choices=VICTIMS, default=VICTIMS, help="default: each of them")
    parser.add_argument("--port", type=int, default=8476, help="where the server listens")
    return parser.parse_args(arguments)
