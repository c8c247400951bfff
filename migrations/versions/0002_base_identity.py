"""What a base is by structure, how bases relate, which of a base's tensors a version touches"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.add_column("bases", sa.Column("struct", sa.String(length=64), server_default="", nullable=False))
    op.add_column("bases", sa.Column("complete", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.create_index(op.f("ix_bases_struct"), "bases", ["struct"])
    op.add_column("versions", sa.Column("target", sa.String(length=64), nullable=True))
    op.create_table(
        "base_edges",
        sa.Column("child_id", Id, nullable=False),
        sa.Column("parent_id", Id, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["child_id"], ["bases.id"], name=op.f("fk_base_edges_child_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["bases.id"], name=op.f("fk_base_edges_parent_id")),
        sa.PrimaryKeyConstraint("child_id", "parent_id", "kind", name=op.f("pk_base_edges")),
    )
    op.create_index(op.f("ix_base_edges_parent_id"), "base_edges", ["parent_id"])


def downgrade():
    op.drop_table("base_edges")
    op.drop_column("versions", "target")
    op.drop_index(op.f("ix_bases_struct"), "bases")
    op.drop_column("bases", "complete")
    op.drop_column("bases", "struct")
