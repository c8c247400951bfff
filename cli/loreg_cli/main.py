"""The command ``loreg`` and its subcommands. Only click and the file of the command that was typed are imported."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

import loreg
from loreg_cli.boundary import COMPLETE, ErrorReportingGroup
from loreg_cli.front_page import START, write_commands

#: What each command does, in a line of the help.
_SUMMARIES = {
    "backup": "Copy the registry to a folder or to S3, while it is used.",
    "bake": "Write adapters and their base as one model, shard by shard.",
    "base": "Add, list, match, relate and upgrade base models.",
    "bases": "List the bases that adapters were trained on, with counts.",
    "check": "Say what is wrong with adapters, also for a server.",
    "compare": "Compare adapters: angles, shared subspaces, sign conflicts.",
    "completion": "Print the completion script of a shell.",
    "db": "Upgrade the catalog's database.",
    "delete": "Delete a version for good; its content cannot be pushed again.",
    "deployments": "List which folders and servers have which versions.",
    "diff": "Show how two adapters differ, field by field.",
    "doctor": "Show the settings in force, and whether all can be reached.",
    "du": "Show how much each namespace or adapter stores.",
    "events": "List who did what, the newest first, or as it is done.",
    "export": "Write an adapter as one server takes it.",
    "extract": "Take an adapter out of a fine-tuned model.",
    "findings": "Count the versions that break a rule, by namespace.",
    "gc": "Remove what nothing refers to, and what nobody needs.",
    "identify": "Say what a file is: the same, scaled, merged, trained on.",
    "import": "Bring in the adapters of training runs, a plan first.",
    "job": "Follow what workers were asked for.",
    "k-merge": "Keep K adapters out of many, the means of similar ones.",
    "lineage": "Show what a version was merged from, and made into.",
    "log": "Show what happened to an adapter, the newest first.",
    "login": "Use the server at URL from now on, with a token.",
    "logout": "Forget server and token.",
    "ls": "List adapters, or the versions of one.",
    "map": "Run one function over the versions of many adapters.",
    "merge": "Merge adapters, exactly or at a rank, with a certificate.",
    "methods": "List the merge methods, or describe one.",
    "metric": "Record measured numbers; list and declare what is measured.",
    "mirror": "Bring adapters with their history to or from another registry.",
    "move": "Move the registry to another database and store.",
    "namespace": "Say who may read a team's adapters on a server.",
    "open": "Open the page of a version in a browser.",
    "prune": "Let versions go that [retention] does not keep.",
    "pull": "Write a version to a folder, ready for PEFT or a server.",
    "push": "Store the adapter in DIR as the next version of NAME.",
    "repair": "Bring back what verify finds missing or damaged.",
    "reproduce": "Do a stored merge again, and compare.",
    "rerank": "Bring an adapter to other ranks, as well as can be.",
    "restore": "Fill an empty registry from a backup.",
    "search": "Find versions by task, metric, base, rank, text.",
    "serve": "Answer over HTTP: one registry for a team.",
    "show": "Show all that is known of a version.",
    "spectra": "Show how large the deltas are, and how they spread.",
    "sweep": "Find the method and the weights to merge by.",
    "sync": "Keep a folder as a selection says, also as it changes.",
    "tag": "Point an alias to a version.",
    "tasks": "List the tasks, with counts and the best of each.",
    "token": "Make, list and revoke the tokens of a server.",
    "ui": "Show the registry of this machine in a browser.",
    "untag": "Forget an alias; its history stays.",
    "unyank": "Show a yanked version again.",
    "verify": "Look in the store for everything that the catalog refers to.",
    "webhook": "Tell other programs of what happens, by signed requests.",
    "whoami": "Show who acts, where, and what they may do.",
    "worker": "Do what was asked for with --remote, or through a server.",
    "yank": "Hide a version; nothing is deleted.",
}
#: The files of the commands that have none of their own name.
_FILES = {
    "import": "import_",
    "k-merge": "k_merge",
    "logout": "login",
    "rerank": "merge",
    "untag": "tag",
    "unyank": "yank",
}


class _Commands(ErrorReportingGroup):
    """Import the file of a command when it is typed: the help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the alphabet."""
        return sorted(_SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, None if there is none of that name."""
        if cmd_name not in _SUMMARIES:
            return None
        module = import_module(f"loreg_cli.{_FILES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        command.short_help = _SUMMARIES[cmd_name]
        if COMPLETE in os.environ:
            from loreg_cli.completing import attach

            attach(command, cmd_name)
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by what people do, and the names of the options: loreg doctor explains them."""
        formatter.write_paragraph()
        write_commands(formatter, _SUMMARIES)
        names = ", ".join(option.opts[0] for option in self.params if option.name not in ("version", "debug"))
        formatter.write_paragraph()
        formatter.write_text(f"Options before the command: {names}, --debug; see loreg doctor --help.")
        formatter.write_text("A command: loreg COMMAND --help. Completion: loreg completion --help.")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; without one, show where to begin."""
        if ctx.invoked_subcommand is None and not ctx._protected_args and not ctx.args:
            click.echo(START)
            return None
        return super().invoke(ctx)


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--home", metavar="DIR", help="The registry in this folder. [env: LOREG_HOME]")
@click.option("--database-url", metavar="URL", help="sqlite:///… or postgresql://… [env: LOREG_DATABASE_URL]")
@click.option("--storage-url", metavar="URL", help="A folder or s3://bucket/prefix. [env: LOREG_STORAGE_URL]")
@click.option("--storage-endpoint", metavar="URL", help="An S3 server other than AWS. [env: LOREG_STORAGE_ENDPOINT]")
@click.option("--endpoint", metavar="URL", help="A loreg server, instead of database and store. [env: LOREG_ENDPOINT]")
@click.option("--author", metavar="NAME", help="Who acts; default: your login. [env: LOREG_AUTHOR]")
@click.option("--debug", is_flag=True, envvar="LOREG_DEBUG", help="Log to stderr what is asked. [env: LOREG_DEBUG]")
@click.version_option(loreg.__version__, prog_name="loreg")
@click.pass_obj
def cli(words: tuple[str, ...], /, debug: bool, **settings: str | None) -> None:
    """A registry for LoRA adapters that reads what is inside them.

    \b
    A ref is [ns/]name[:alias|:vN][@sha256:…], as in loreg show team/news:prod
    """
    if debug:
        from loreg_cli.debug import log_to_stderr

        log_to_stderr(words)


if __name__ == "__main__":
    cli()
