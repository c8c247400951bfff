"""What was exported of a version for which server, so that it is made once; the licenses of bases"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.add_column("bases", sa.Column("license", sa.String(length=64), server_default="", nullable=False))
    op.create_table(
        "exports",
        sa.Column("id", Id, nullable=False),
        sa.Column("version_id", Id, nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_exports_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
        sa.UniqueConstraint("version_id", "request", name=op.f("uq_exports_version_id_request")),
    )
    op.create_table(
        "export_files",
        sa.Column("export_id", Id, nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name=op.f("fk_export_files_digest")),
        sa.ForeignKeyConstraint(["export_id"], ["exports.id"], name=op.f("fk_export_files_export_id")),
        sa.PrimaryKeyConstraint("export_id", "path", name=op.f("pk_export_files")),
    )
    op.create_index(op.f("ix_export_files_digest"), "export_files", ["digest"])


def downgrade():
    op.drop_table("export_files")
    op.drop_table("exports")
    op.drop_column("bases", "license")
