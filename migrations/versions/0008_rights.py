"""What uploads, drafts, jobs and bases must know of whose they are, so that nobody gets in and nothing is lost"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

WORD = sa.String(length=128)
QUEUED, RUNNING = sa.text("state = 'queued'"), sa.text("state = 'running'")
OPEN = sa.text("state IN ('queued', 'running')")
WITHOUT_TOKEN = {
    "code": "unauthenticated",
    "message": "no token of today asked for it, and everybody needs one",
    "hint": "loreg login",
}


def upgrade():
    # Every upload lies apart from the blobs until it is committed: none has a place among them.
    with op.batch_alter_table("uploads") as uploads:
        uploads.drop_constraint(op.f("uq_uploads_slot"), type_="unique")
        uploads.drop_column("slot")
    # Which version the branch of an unfinished upload meant when it was begun.
    with op.batch_alter_table("drafts") as drafts:
        drafts.add_column(sa.Column("basis", sa.String(length=64), server_default="", nullable=False))
    # Jobs know their token, their policy, what they need and whose turn it is; claiming reads none that has ended.
    op.add_column("jobs", sa.Column("token_id", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("while_open", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("jobs", sa.Column("base", sa.String(length=256), server_default="", nullable=False))
    op.add_column("jobs", sa.Column("needs_torch", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.add_column("jobs", sa.Column("policy", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("turn", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("losses", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("able_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index(op.f("ix_jobs_state_id"), "jobs")
    op.create_index(op.f("ix_jobs_namespace_id"), "jobs", ["namespace", "id"])
    for name, column, where in (
        ("queued", "turn", QUEUED),
        ("running", "beat_at", RUNNING),
        ("open", "namespace", OPEN),
    ):
        op.create_index(f"ix_jobs_{name}", "jobs", [column, "id"], sqlite_where=where, postgresql_where=where)
    _fill_in_what_waits()
    # Exports are made by the registry. What is there was taken from whoever sent it: it is made anew when asked for.
    op.execute("DELETE FROM export_files")
    op.execute("DELETE FROM exports")
    with op.batch_alter_table("exports") as exports:
        exports.add_column(sa.Column("profile", WORD, server_default="", nullable=False))
        exports.add_column(sa.Column("author", WORD, server_default="", nullable=False))
    with op.batch_alter_table("bases") as bases:
        bases.add_column(sa.Column("author", WORD, server_default="", nullable=False))
    _say_who_added_bases()


def _fill_in_what_waits():
    """The token of each job that has not ended, by its name and rights, and the base that it needs.

    Where none has that name and those rights, a server without tokens may have let anybody ask: the job goes on while
    there is no token, and has failed where there is one.
    """
    connection = op.get_bind()
    found = connection.execute(sa.text("SELECT id, name, grants FROM tokens ORDER BY id"))
    tokens = {(name, _canonical(grants)): token for token, name, grants in found}
    waiting = connection.execute(
        sa.text("SELECT id, author, grants, request FROM jobs WHERE state IN ('queued', 'running')")
    )
    change = sa.text(
        "UPDATE jobs SET token_id = :token, while_open = :open, base = :base, able_at = created_at WHERE id = :job"
    )
    for job, author, grants, request in waiting.all():
        token, base = tokens.get((author, _canonical(grants))), _read(request).get("base") or ""
        connection.execute(change, {"job": job, "token": token, "open": token is None, "base": base})
    if tokens:
        end = "UPDATE jobs SET state = 'failed', error = :error, finished_at = CURRENT_TIMESTAMP WHERE while_open"
        connection.execute(sa.text(end), {"error": json.dumps(WITHOUT_TOKEN)})


def _read(document):
    return json.loads(document) if isinstance(document, str) else document


def _canonical(document):
    return json.dumps(_read(document), sort_keys=True)


def _say_who_added_bases():
    connection = op.get_bind()
    bases = sa.table("bases", sa.column("digest"), sa.column("author"))
    events = sa.table("events", sa.column("action"), sa.column("author"), sa.column("detail", sa.JSON))
    added = sa.select(events.c.detail, events.c.author).where(events.c.action == "base add")
    for detail, author in connection.execute(added).all():  # a base is added once
        connection.execute(bases.update().where(bases.c.digest == detail["digest"]).values(author=author))


def downgrade():
    with op.batch_alter_table("bases") as bases:
        bases.drop_column("author")
    with op.batch_alter_table("exports") as exports:
        exports.drop_column("author")
        exports.drop_column("profile")
    for name in ("queued", "running", "open"):
        op.drop_index(f"ix_jobs_{name}", "jobs")
    op.drop_index(op.f("ix_jobs_namespace_id"), "jobs")
    op.create_index(op.f("ix_jobs_state_id"), "jobs", ["state", "id"])
    with op.batch_alter_table("jobs") as jobs:
        for name in ("able_at", "losses", "turn", "policy", "needs_torch", "base", "while_open", "token_id"):
            jobs.drop_column(name)
    with op.batch_alter_table("drafts") as drafts:
        drafts.drop_column("basis")
    with op.batch_alter_table("uploads") as uploads:
        uploads.add_column(sa.Column("slot", sa.String(length=64), nullable=True))
        uploads.create_unique_constraint(op.f("uq_uploads_slot"), ["slot"])
