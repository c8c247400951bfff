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
class Place:
    """What a verb makes beside its registry: ``second`` is a registry of the same kind, ``home`` one in a folder.

    The other kinds are ``backup``, ``bundle`` and ``followed``, a folder that ``sync`` writes. ``where`` is as it is
    typed.
    """

    kind: str
    where: str = ""


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
    With ``empty`` it begins in an empty registry; what is ``before`` is done to the filled one, and the files that this
    made are there. ``{database}``, ``{storage}`` and ``{endpoint}`` are a ``second`` place, which has no registry.
    With ``removes`` the store must end with the same blobs, and a backup with the same blobs and snapshots; and what a
    killed collector has claimed is free before the verb is done again: else that takes 15 minutes.
    """

    name: str
    command: Command
    then: Command | None = None
    serves: bool = False
    job: Job | None = None
    target: str = ""
    empty: bool = False
    backends: tuple[str, ...] = ("sqlite", "postgres")
    before: tuple[Command, ...] = ()
    makes: tuple[Place, ...] = ()
    second: bool = False
    removes: bool = False


#: A push that was killed when all of its blobs were stored; and what the versions' keeper has written down.
_ABANDONED: Command = ("killed", "push", "{in}/new", "team/one", "--base", "tiny")
_RETENTION: Command = ("write", "loreg.toml", "[retention]\nkeep_last = 1\n")
_OLD: tuple[Command, ...] = (
    ("push", "{in}/new", "team/one", "--base", "tiny"),
    ("merge", "team/one:v2", "team/two", "--weights", "0.7,0.3", "--push", "team/zoo"),
    ("push", "{in}/new", "team/zoo", "--base", "tiny"),
)
_DELETE = ("delete", "team/one:v1", "--yes", "--reason", "asked for")
_EXPORTED: Command = ("pull", "team/one:v1", "pulled", "--profile", "vllm")
_BROKEN: tuple[Command, ...] = (
    ("lose", "{in}/one/adapter_model.safetensors"),
    ("spoil", "{in}/two/README.md"),
    ("lose", "team/two:v1"),
)
_MOVE = ("move", "--to-database", "{database}", "--to-storage", "{storage}", "--to-storage-endpoint", "{endpoint}")
_MOVE_HOME = ("move", "--to-database", "sqlite:///{work}/moved/catalog.db", "--to-storage", "{work}/moved/store")
_UNDO = ("move", "--undo")
_FORGET = ("--forget", "--keep-last", "1")
_CHANGED: tuple[Command, ...] = (
    ("tag", "team/one:v2", "prod"),
    ("metric", "add", "team/one:v1", "f1=0.5@d"),
    ("tag", "team/one:v1", "gone"),
    ("untag", "team/one", "gone"),
    ("yank", "team/one:v1", "--reason", "leaks"),
)
_SYNC = ("sync", "team/*", "out", "--keep", "0")
_SYNCED: tuple[Command, ...] = (("sync", "team/*", "also/two=team/two", "out"),)
_CHANGED_ONE: tuple[Command, ...] = (("push", "{in}/new", "team/one", "--base", "tiny"),)
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
    Case("base-upgrade", ("base", "upgrade", "{in}/base", "{in}/tuned", "--move")),
    Case("tag", ("tag", "team/one:v2", "prod")),
    Case("untag", ("untag", "team/one", "prod"), then=("untag", "team/one", "prod")),  # may be refused: it is gone
    Case("yank", ("yank", "team/one:v2", "--reason", "leaks")),
    Case("metric", ("metric", "add", "team/one:v1", "accuracy=0.85@d")),
    Case("sync", ("sync", "team/*", "out"), makes=(Place("followed", "out"),)),
    Case("sync-again", _SYNC, before=(*_SYNCED, *_CHANGED_ONE), makes=(Place("followed", "out"),)),
    Case("sync-then-moved", _SYNC, before=(*_SYNCED, *_CHANGED_ONE), makes=(Place("followed", "out"),),
         then=("sync", "team/*", "again=team/one:v1", "out", "--keep", "0")),
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
    Case("gc", ("gc", "--grace", "0h"), before=(_ABANDONED,), removes=True),
    Case("repair", ("repair", "--read-data", "--from", "{in}/one", "--from", "{in}/two"), before=_BROKEN),
    Case("delete", _DELETE, before=(_EXPORTED,), removes=True),
    Case("delete-at-once", _DELETE, then=_DELETE),  # refused while the killed one's claim holds
    Case("prune", ("prune", "team/*", "--yes"), before=(_RETENTION, *_OLD), removes=True),
    Case("backup", ("backup", "kept"), makes=(Place("backup", "kept"),)),
    Case("backup-again", ("backup", "kept"), before=(("backup", "kept"), _PUSH), makes=(Place("backup", "kept"),)),
    Case("backup-to-s3", ("backup", "{storage}"), makes=(Place("backup", "{storage}"),), second=True,
         backends=("postgres",)),
    Case("forget", ("backup", "kept", *_FORGET), makes=(Place("backup", "kept"),), removes=True,
         before=(("backup", "kept"), _DELETE, ("backup", "kept"))),
    Case("forget-on-s3", ("backup", "{storage}", *_FORGET), makes=(Place("backup", "{storage}"),), removes=True,
         before=(("backup", "{storage}"), _DELETE, ("backup", "{storage}")), second=True, backends=("postgres",)),
    Case("restore", ("restore", "kept"), empty=True, before=(("backup", "kept"),)),
    Case("move", _MOVE, second=True, makes=(Place("second"),)),
    Case("move-to-home", _MOVE_HOME, makes=(Place("home", "moved"),), backends=("postgres",)),
    Case("move-undo", _UNDO, then=_UNDO, before=(_MOVE,), second=True),  # may be refused: it is undone
    Case("move-then-undo", _MOVE, then=_UNDO, second=True),  # refused where nothing was closed yet
    Case("mirror-to-home", ("mirror", "team/*", "--to", "other"), makes=(Place("home", "other"),)),
    Case("mirror-again", ("mirror", "team/*", "--to", "other"), makes=(Place("home", "other"),),
         before=(("mirror", "team/*", "--to", "other"), _PUSH, *_CHANGED)),
    Case("mirror-from-home", ("mirror", "*", "--from", "other"), empty=True,
         before=(("mirror", "*", "--to", "other"),)),
    Case("mirror-to-bundle", ("mirror", "*", "--to", "all.loreg"), makes=(Place("bundle", "all.loreg"),)),
    Case("mirror-from-bundle", ("mirror", "*", "--from", "all.loreg"), empty=True,
         before=(("mirror", "*", "--to", "all.loreg"),)),
    Case("job-gc", WORK, job=Job("gc", {"grace": "0h"}), before=(_ABANDONED,), removes=True),
    Case("job-prune", WORK, job=Job("prune", {"pattern": "team/*"}), before=(_RETENTION, *_OLD), removes=True),
    Case("job-backup", (*WORK, "--backup-to", "kept"), job=Job("backup", {"target": "kept"}),
         makes=(Place("backup", "kept"),)),
    Case("job-verify", WORK, job=Job("verify", {})),
)  # fmt: skip
