"""The command ``loreg`` and its subcommands. Only click and the file of the command that was typed are imported."""

from __future__ import annotations

from importlib import import_module

import click

import loreg
from loreg_cli.boundary import ErrorReportingGroup

#: The file in which each command is.
_FILES = {
    name: name
    for name in (
        "bake", "base", "check", "compare", "completion", "db", "doctor", "events", "export", "extract", "job",
        "lineage", "login", "ls", "merge", "methods", "metric", "namespace", "pull", "push", "repair", "reproduce",
        "search", "serve", "show", "tag", "token", "verify", "worker", "yank",
    )
} | {"logout": "login", "rerank": "merge", "untag": "tag", "unyank": "yank"}  # fmt: skip


class _Commands(ErrorReportingGroup):
    """Import the file of a command when it is typed, or when the help lists it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the alphabet."""
        return sorted(_FILES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, None if there is none of that name."""
        if cmd_name not in _FILES:
            return None
        command: click.Command = getattr(import_module(f"loreg_cli.{_FILES[cmd_name]}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--home", metavar="DIR", help="The registry in this folder. [env: LOREG_HOME]")
@click.option("--database-url", metavar="URL", help="sqlite:///… or postgresql://… [env: LOREG_DATABASE_URL]")
@click.option("--storage-url", metavar="URL", help="A folder or s3://bucket/prefix. [env: LOREG_STORAGE_URL]")
@click.option("--storage-endpoint", metavar="URL", help="An S3 server other than AWS. [env: LOREG_STORAGE_ENDPOINT]")
@click.option("--endpoint", metavar="URL", help="A loreg server, instead of database and store. [env: LOREG_ENDPOINT]")
@click.option("--author", metavar="NAME", help="Who acts; default: your login. [env: LOREG_AUTHOR]")
@click.option("--debug", is_flag=True, envvar="LOREG_DEBUG", help="Log to stderr what is asked. [env: LOREG_DEBUG]")
@click.version_option(loreg.__version__, prog_name="loreg")
def cli(debug: bool, **settings: str | None) -> None:
    """A registry for LoRA adapters that reads what is inside them.

    It knows of each adapter which base it was trained on, which modules it touches at which rank, how good
    it is on which task, and what merging two of them keeps and loses. A ref names a version:
    [ns/]name[:alias|:vN][@sha256:…]
    """
    if debug:
        from loreg_cli.debug import log_to_stderr

        log_to_stderr()


if __name__ == "__main__":
    cli()
