"""Requests to several servers that never pause, and which version each answer is of."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from truth import TOLERANCE

#: What an answer says: for each token that was chosen, its number and its log-probability.
Tokens = list[tuple[int, float]]


@dataclass(frozen=True)
class Answered:
    """One request to a replica: when it began and ended, and what came back."""

    replica: int
    alias: str
    begin: float
    end: float
    prompt: int
    status: int
    model: str
    tokens: Tokens
    reason: str


@dataclass
class Load:
    """Threads that ask ``replicas`` for ``models``, each the next when it has an answer, within a ``with`` block."""

    replicas: Sequence[str]
    models: Sequence[str]
    prompts: Sequence[Sequence[int]]
    length: int
    threads: int = 4
    answers: list[Answered] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._change, self._ends = threading.Condition(), False
        self._running = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends = True
        for thread in self._running:
            thread.join()

    def wait(self, alias: str, since: float, answers: int = 2) -> None:
        """Wait until each replica has answered so many requests for the alias that began after ``since``."""

        def have_answered() -> bool:
            later = [a.replica for a in self.answers[-200:] if a.alias == alias and a.begin > since]
            return all(later.count(replica) >= answers for replica in range(len(self.replicas)))

        with self._change:
            if not self._change.wait_for(have_answered, timeout=120):
                raise SystemExit(f"no answers for {alias} any more")

    def _ask_on(self, number: int) -> None:
        replica = number % len(self.replicas)
        with httpx.Client(base_url=self.replicas[replica], timeout=120) as client:
            for count in itertools.count(number):
                if self._ends:
                    return
                # Most requests are for the first model.
                model = self.models[(count // 2) % len(self.models) if count % 2 else 0]
                answered = self._ask(client, replica, model, count % len(self.prompts))
                with self._change:
                    self.answers.append(answered)
                    self._change.notify_all()

    def _ask(self, client: httpx.Client, replica: int, model: str, prompt: int) -> Answered:
        body: dict[str, Any] = {
            "model": model, "prompt": self.prompts[prompt], "max_tokens": self.length, "temperature": 0, "logprobs": 1,
            "ignore_eos": True,
        }  # fmt: skip
        begin = time.monotonic()
        response = client.post("/v1/completions", json=body)
        end, document = time.monotonic(), response.json()
        tokens, reason = [], document.get("error", {}).get("message", "")
        if response.status_code == 200:
            chosen = document["choices"][0]["logprobs"]
            names = (int(token.strip().removeprefix("w")) for token in chosen["tokens"])
            tokens = list(zip(names, chosen["token_logprobs"], strict=True))
        alias, pinned = model.rpartition(":")[2], document.get("model", "")
        return Answered(replica, alias, begin, end, prompt, response.status_code, pinned, tokens, reason)


def versions_of(tokens: Tokens, right: Mapping[str, Sequence[Tokens]], prompt: int) -> list[str]:
    """The versions that compute these tokens with these log-probabilities for the prompt."""
    return [
        version
        for version, by_prompt in right.items()
        if [token for token, _ in by_prompt[prompt]] == [token for token, _ in tokens]
        and all(abs(a - b) <= TOLERANCE for (_, a), (_, b) in zip(by_prompt[prompt], tokens, strict=True))
    ]
