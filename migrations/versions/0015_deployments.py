"""Which folders and servers have which versions, as they tell"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table(
        "followers",
        sa.Column("id", ID, nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("server", sa.String(length=128), nullable=False),
        sa.Column("replica", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_followers")),
        sa.UniqueConstraint("author", "server", "replica", name=op.f("uq_followers_author_server_replica")),
    )
    op.create_index(op.f("ix_followers_seen_at"), "followers", ["seen_at"])
    op.create_table(
        "deployments",
        sa.Column("follower_id", ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version_id", ID, nullable=False),
        sa.Column("alias", sa.String(length=96), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["follower_id"], ["followers.id"], name=op.f("fk_deployments_follower_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_deployments_version_id")),
        sa.PrimaryKeyConstraint("follower_id", "name", name=op.f("pk_deployments")),
    )
    op.create_index(op.f("ix_deployments_version_id"), "deployments", ["version_id"])


def downgrade():
    op.drop_table("deployments")
    op.drop_table("followers")
