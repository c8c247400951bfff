"""What uploads, drafts, jobs and bases must know of whose they are, so that nobody gets in and nothing is lost"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade():
    # Every upload lies apart from the blobs until it is committed: none has a place among them.
    with op.batch_alter_table("uploads") as uploads:
        uploads.drop_constraint(op.f("uq_uploads_slot"), type_="unique")
        uploads.drop_column("slot")
    # Which version the branch of an unfinished upload meant when it was begun.
    with op.batch_alter_table("drafts") as drafts:
        drafts.add_column(sa.Column("basis", sa.String(length=64), server_default="", nullable=False))


def downgrade():
    with op.batch_alter_table("drafts") as drafts:
        drafts.drop_column("basis")
    with op.batch_alter_table("uploads") as uploads:
        uploads.add_column(sa.Column("slot", sa.String(length=64), nullable=True))
        uploads.create_unique_constraint(op.f("uq_uploads_slot"), ["slot"])
