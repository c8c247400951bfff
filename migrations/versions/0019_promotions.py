"""What an alias goes back to when the version that was promoted measures badly"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table(
        "promotions",
        sa.Column("adapter_id", ID, nullable=False),
        sa.Column("alias", sa.String(length=96), nullable=False),
        sa.Column("version_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("previous_id", ID, nullable=False),
        sa.Column("previous_number", sa.Integer(), nullable=False),
        sa.Column("rollback_if", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_promotions_adapter_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_promotions_version_id")),
        sa.ForeignKeyConstraint(["previous_id"], ["versions.id"], name=op.f("fk_promotions_previous_id")),
        sa.PrimaryKeyConstraint("adapter_id", "alias", name=op.f("pk_promotions")),
    )
    op.create_index(op.f("ix_promotions_version_id"), "promotions", ["version_id"])
    op.create_index(op.f("ix_promotions_previous_id"), "promotions", ["previous_id"])


def downgrade():
    op.drop_table("promotions")
