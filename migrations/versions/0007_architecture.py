"""What class of model a base is, and which of its weights one flag ties"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade():
    with op.batch_alter_table("bases") as bases:
        bases.add_column(sa.Column("config", sa.Text(), server_default="{}", nullable=False))


def downgrade():
    with op.batch_alter_table("bases") as bases:
        bases.drop_column("config")
