"""A count of every fact that was ever written, kept by the database itself."""

from __future__ import annotations

from sqlalchemy import Engine, text


def record_writes(engine: Engine) -> None:
    """Let the database itself write down every fact that is inserted or replaced from now on."""
    is_postgres = engine.dialect.name == "postgresql"
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE writes (version_id INTEGER)"))
        insert = "INSERT INTO writes VALUES (NEW.version_id);"
        if is_postgres:
            function = (
                f"CREATE FUNCTION written() RETURNS trigger AS $$ BEGIN {insert} RETURN NULL; END $$ LANGUAGE plpgsql"
            )
            connection.execute(text(function))
            for what in ("INSERT", "UPDATE"):
                trigger = f"CREATE TRIGGER on_{what} AFTER {what} ON facts FOR EACH ROW EXECUTE FUNCTION written()"
                connection.execute(text(trigger))
        else:
            for what in ("INSERT", "UPDATE"):
                connection.execute(text(f"CREATE TRIGGER on_{what} AFTER {what} ON facts BEGIN {insert} END"))


def list_writes(engine: Engine) -> list[int]:
    """Return the ids of the versions of which facts were written, once for each time."""
    with engine.begin() as connection:
        return sorted(connection.execute(text("SELECT version_id FROM writes")).scalars())
