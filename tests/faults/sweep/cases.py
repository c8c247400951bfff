"""Every verb that changes something, as it is typed; ``{in}`` is the folder of the inputs."""

from __future__ import annotations

from dataclasses import dataclass

Command = tuple[str, ...]

#: What every registry holds before, unless the case begins with an empty one.
FILLED: tuple[Command, ...] = (
    ("base", "add", "{in}/base", "--name", "tiny"),
    ("push", "{in}/one", "team/one", "--base", "tiny", "--task", "news", "--metric", "accuracy=0.8@d"),
    ("push", "{in}/next", "team/one", "--base", "tiny"),
    ("push", "{in}/two", "team/two", "--base", "tiny"),
    ("tag", "team/one:v1", "prod"),
)
SERVE: Command = ("serve", "--port", "0")
WORK: Command = ("worker", "--until-idle", "--bases", "{in}", "--models", "models")


@dataclass(frozen=True)
class Job:
    """What was asked of a worker before the case begins."""

    kind: str
    request: dict[str, object]


@dataclass(frozen=True)
class Case:
    """A verb and how it is tried: it is killed, and then done again, or ``then`` is done instead, which may be refused.

    With ``serves`` it is not the command that is killed but the server that it asks. ``hub`` and ``hub-file`` are what
    the Hub's own client does with a folder or a file. ``target`` is the folder that appears, at once or not at all.
    """

    name: str
    command: Command
    then: Command | None = None
    serves: bool = False
    job: Job | None = None
    target: str = ""
    empty: bool = False
    backends: tuple[str, ...] = ("sqlite", "postgres")


_PUSH = ("push", "{in}/new", "team/one", "--base", "tiny", "--task", "news", "--metric", "f1=0.9@d", "--alias", "prod")
_BAKE = ("bake", "team/one:v1", "--base", "{in}/base", "--to", "out")
CASES = (
    Case("push", _PUSH),
    Case("push-first", ("push", "{in}/one", "team/one", "--base", "{in}/base"), empty=True),
    Case("push-in-parts", ("push", "{in}/large", "team/large"), backends=("postgres",)),
    Case("pull", ("pull", "team/one:prod", "out"), target="out"),
    Case("pull-another", ("pull", "team/one:prod", "out"), then=("pull", "team/two", "out"), target="out"),
    Case("merge-push", ("merge", "team/one:v1", "team/two", "--weights", "0.7,0.3", "--push", "team/blend")),
    Case("merge-to", ("merge", "team/one:v1", "team/two", "--weights", "0.7,0.3", "--to", "out"), target="out"),
    Case("merge-here", ("merge", "team/one:v1", "team/two", "--weights", "0.7,0.3", "--to", "."), backends=("sqlite",)),
    Case("rerank", ("rerank", "team/one:v1", "--rank", "4", "--push", "team/small", "--alias", "prod")),
    Case("bake", _BAKE, target="out"),
    Case("bake-another", _BAKE, then=("bake", "team/two", *_BAKE[2:]), target="out"),
    Case("extract", ("extract", "--base", "{in}/base", "--tuned", "{in}/tuned", "--rank", "4", "--push", "team/taken")),
    Case("base-add", ("base", "add", "{in}/tuned", "--name", "tuned")),
    Case("tag", ("tag", "team/one:v2", "prod")),
    Case("untag", ("untag", "team/one", "prod"), then=("untag", "team/one", "prod")),  # may be refused: it is gone
    Case("yank", ("yank", "team/one:v2", "--reason", "leaks")),
    Case("metric", ("metric", "add", "team/one:v1", "accuracy=0.85@d")),
    Case("export", ("pull", "team/one:prod", "out", "--profile", "vllm"), target="out"),
    Case("export-to", ("export", "team/one:prod", "--profile", "vllm", "--to", "out"), target="out"),
    Case("push-to-server", _PUSH, serves=True),
    Case("hub-upload", ("hub", "{in}/new", "team/one"), serves=True),
    Case("hub-first", ("hub", "{in}/new", "team/fresh"), serves=True),
    Case("hub-first-then-file", ("hub", "{in}/new", "team/fresh"), serves=True,
         then=("hub-file", "{in}/two/README.md", "team/fresh")),
    Case("job-merge", WORK, job=Job("merge", {"sources": ["team/one:v1", "team/two"], "name": "team/blend"})),
    Case("job-rerank", WORK, job=Job("rerank", {"source": "team/one:v1", "rank": 4, "name": "team/small"})),
    Case("job-bake", WORK, job=Job("bake", {"sources": ["team/one:v1"], "base": "base", "name": "team/baked"}),
         target="models/team/baked"),
)  # fmt: skip
