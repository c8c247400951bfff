"""What the weights of versions are found by: sketches of their deltas, and the digest of their data"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table(
        "sketches",
        sa.Column("id", ID, nullable=False),
        sa.Column("version_id", ID, nullable=False),
        sa.Column("data", sa.String(length=64), nullable=False),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("vector", sa.Text(), nullable=False),
        sa.Column("signs_1", sa.BigInteger(), nullable=True),
        sa.Column("signs_2", sa.BigInteger(), nullable=True),
        sa.Column("signs_3", sa.BigInteger(), nullable=True),
        sa.Column("signs_4", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_sketches_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sketches")),
        sa.UniqueConstraint("version_id", name=op.f("uq_sketches_version_id")),
        sqlite_autoincrement=True,
    )
    for column in ("data", "signs_1", "signs_2"):
        op.create_index(op.f(f"ix_sketches_{column}"), "sketches", [column])


def downgrade():
    op.drop_table("sketches")
