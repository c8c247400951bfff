"""What upgrades of bases mean for versions, as it was measured"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table(
        "base_upgrades",
        sa.Column("old_id", ID, nullable=False),
        sa.Column("new_id", ID, nullable=False),
        sa.Column("tensors", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("change", sa.Double(), nullable=True),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["old_id"], ["bases.id"], name=op.f("fk_base_upgrades_old_id")),
        sa.ForeignKeyConstraint(["new_id"], ["bases.id"], name=op.f("fk_base_upgrades_new_id")),
        sa.PrimaryKeyConstraint("old_id", "new_id", name=op.f("pk_base_upgrades")),
    )
    op.create_index(op.f("ix_base_upgrades_new_id"), "base_upgrades", ["new_id"])
    op.create_table(
        "upgrade_verdicts",
        sa.Column("version_id", ID, nullable=False),
        sa.Column("new_id", ID, nullable=False),
        sa.Column("old_id", ID, nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("read", sa.Double(), nullable=True),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_upgrade_verdicts_version_id")),
        sa.ForeignKeyConstraint(["new_id"], ["bases.id"], name=op.f("fk_upgrade_verdicts_new_id")),
        sa.ForeignKeyConstraint(["old_id"], ["bases.id"], name=op.f("fk_upgrade_verdicts_old_id")),
        sa.PrimaryKeyConstraint("version_id", "new_id", name=op.f("pk_upgrade_verdicts")),
    )
    op.create_index(op.f("ix_upgrade_verdicts_new_id_old_id"), "upgrade_verdicts", ["new_id", "old_id"])


def downgrade():
    op.drop_table("upgrade_verdicts")
    op.drop_table("base_upgrades")
