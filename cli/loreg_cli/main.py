"""The command ``loreg`` and its subcommands. Only click is imported before a command runs."""

from __future__ import annotations

import click

import loreg
from loreg_cli import access, bases, checking, describe, find, jobs, merging, models, operate, transfer
from loreg_cli.boundary import ErrorReportingGroup


@click.group(
    cls=ErrorReportingGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--home", metavar="DIR", help="The registry in this folder. [env: LOREG_HOME]")
@click.option("--database-url", metavar="URL", help="sqlite:///… or postgresql://… [env: LOREG_DATABASE_URL]")
@click.option("--storage-url", metavar="URL", help="A folder or s3://bucket/prefix. [env: LOREG_STORAGE_URL]")
@click.option("--storage-endpoint", metavar="URL", help="An S3 server other than AWS. [env: LOREG_STORAGE_ENDPOINT]")
@click.option("--endpoint", metavar="URL", help="A loreg server, instead of database and store. [env: LOREG_ENDPOINT]")
@click.option("--author", metavar="NAME", help="Who acts; default: your login. [env: LOREG_AUTHOR]")
@click.version_option(loreg.__version__, prog_name="loreg")
def cli(**settings: str | None) -> None:
    """The registry that LoRA adapters lack.

    It knows what is inside an adapter: which base it was trained on, which modules it touches at which rank, how good
    it is on which task, and what merging two of them keeps and loses. A ref names a version:
    [ns/]name[:alias|:vN][@sha256:…]
    """


for command in (
    transfer.push,
    transfer.pull,
    transfer.export,
    find.ls,
    find.search,
    find.show,
    find.lineage,
    bases.base,
    checking.check,
    merging.merge,
    merging.rerank,
    merging.compare,
    merging.reproduce,
    merging.methods,
    models.bake,
    models.extract,
    describe.tag,
    describe.untag,
    describe.yank,
    describe.unyank,
    describe.metric,
    access.login,
    access.logout,
    access.token,
    access.namespace,
    access.events,
    jobs.job,
    jobs.worker,
    operate.serve,
    operate.doctor,
    operate.db,
    operate.completion,
):
    cli.add_command(command)

if __name__ == "__main__":
    cli()
