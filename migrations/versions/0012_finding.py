"""The full text of versions, and metrics whose direction and unit are declared"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade():
    # loreg.catalog.search_text fills it, once the schema is the newest.
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TABLE search_texts ("
            "version_id BIGINT CONSTRAINT pk_search_texts PRIMARY KEY "
            "CONSTRAINT fk_search_texts_version_id REFERENCES versions (id), document tsvector NOT NULL)"
        )
        op.execute("CREATE INDEX ix_search_texts_document ON search_texts USING gin (document)")
    else:
        op.execute(
            "CREATE VIRTUAL TABLE search_texts USING fts5("
            "name, subject, features, prose, tokenize = 'unicode61 remove_diacritics 0')"
        )
    op.create_table(
        "metric_declarations",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("higher_is_better", sa.Boolean(), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_metric_declarations")),
    )


def downgrade():
    op.drop_table("metric_declarations")
    op.execute("DROP TABLE search_texts")
