"""Which version the branch of an unfinished upload meant when it was begun"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade():
    with op.batch_alter_table("drafts") as drafts:
        drafts.add_column(sa.Column("basis", sa.String(length=64), server_default="", nullable=False))


def downgrade():
    with op.batch_alter_table("drafts") as drafts:
        drafts.drop_column("basis")
