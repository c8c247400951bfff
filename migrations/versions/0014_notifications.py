"""PostgreSQL tells those who listen of each new event when its transaction commits, so that nobody has to poll"""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade():
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute(
        """
        CREATE FUNCTION notify_of_events() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM pg_notify('loreg_events', '');
          RETURN NULL;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER notify_of_events AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION notify_of_events()"
    )


def downgrade():
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("DROP TRIGGER notify_of_events ON events")
    op.execute("DROP FUNCTION notify_of_events()")
