"""Showing a version at a million adapters: a file's row says its size, an alias's move the version's number"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade():
    with op.batch_alter_table("files") as files:
        files.add_column(sa.Column("size", sa.BigInteger(), server_default="0", nullable=False))
    op.execute("UPDATE files SET size = (SELECT blobs.size FROM blobs WHERE blobs.digest = files.digest)")
    with op.batch_alter_table("alias_moves") as moves:
        moves.add_column(sa.Column("number", sa.Integer()))
    op.execute("UPDATE alias_moves SET number = (SELECT number FROM versions WHERE versions.id = version_id)")


def downgrade():
    with op.batch_alter_table("alias_moves") as moves:
        moves.drop_column("number")
    with op.batch_alter_table("files") as files:
        files.drop_column("size")
