"""What a registry needs to be cleared and moved: its own identity, garbage on its way out, and tombstones"""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

DIGEST = sa.String(length=64)
TIME = sa.DateTime(timezone=True)


def upgrade():
    # Which catalog a store belongs to: its mark there names this id.
    registry = op.create_table(
        "registry",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("moved_to", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry")),
    )
    op.bulk_insert(registry, [{"id": uuid.uuid4().hex, "moved_to": ""}])
    op.create_table(
        "garbage",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("marked_at", TIME, nullable=False),
        sa.Column("claimed_at", TIME, nullable=True),
        sa.Column("collected_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_garbage")),
    )
    op.create_index(op.f("ix_garbage_marked_at"), "garbage", ["marked_at"])
    op.create_table(
        "tombstones",
        sa.Column("adapter_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("weights", DIGEST, nullable=False),
        sa.Column("is_banned", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_tombstones_adapter_id")),
        sa.PrimaryKeyConstraint("adapter_id", "number", name=op.f("pk_tombstones")),
    )
    op.create_index(op.f("ix_tombstones_digest"), "tombstones", ["digest"])
    op.create_index(op.f("ix_tombstones_weights"), "tombstones", ["weights"])


def downgrade():
    op.drop_table("tombstones")
    op.drop_table("garbage")
    op.drop_table("registry")
