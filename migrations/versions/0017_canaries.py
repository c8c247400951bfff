"""Aliases that mean a second version for a share of those who ask"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table(
        "canaries",
        sa.Column("adapter_id", ID, nullable=False),
        sa.Column("alias", sa.String(length=96), nullable=False),
        sa.Column("version_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("rollback_if", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_canaries_adapter_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_canaries_version_id")),
        sa.PrimaryKeyConstraint("adapter_id", "alias", name=op.f("pk_canaries")),
    )
    op.create_index(op.f("ix_canaries_version_id"), "canaries", ["version_id"])


def downgrade():
    op.drop_table("canaries")
