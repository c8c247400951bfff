"""What probes say of versions, the findings that can be counted, and the work of probing many versions"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table(
        "facts",
        sa.Column("version_id", ID, nullable=False),
        sa.Column("probe", sa.String(length=128), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_facts_version_id")),
        sa.PrimaryKeyConstraint("version_id", "probe", name=op.f("pk_facts")),
    )
    op.create_table(
        "findings",
        sa.Column("version_id", ID, nullable=False),
        sa.Column("code", sa.String(length=128), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_findings_version_id")),
        sa.PrimaryKeyConstraint("version_id", "code", name=op.f("pk_findings")),
    )
    op.create_index(op.f("ix_findings_code_version_id"), "findings", ["code", "version_id"])
    op.create_table(
        "map_runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("probe", sa.String(length=128), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=False),
        sa.Column("selection", sa.JSON(), nullable=False),
        sa.Column("last_version_id", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_map_runs")),
    )
    op.create_table(
        "map_chunks",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("version_ids", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["map_runs.id"], name=op.f("fk_map_chunks_run_id")),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_map_chunks")),
    )
    op.create_index(op.f("ix_map_chunks_run_id_state_number"), "map_chunks", ["run_id", "state", "number"])


def downgrade():
    for table in ("map_chunks", "map_runs", "findings", "facts"):
        op.drop_table(table)
