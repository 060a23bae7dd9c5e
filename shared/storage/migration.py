"""How a database gets its tables: Alembic, in a transaction that the caller holds."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect


def migrate(connection: Connection, migrations: Path, revision: str | None, to: str) -> None:
    """Bring the tables to a revision, inside the connection's transaction.

    Args:
        connection: Of a transaction that may write.
        migrations: Where the service's migrations lie.
        revision: What the database has now; None if it is empty.
        to: The revision to reach, or "head".
    """
    from alembic import command  # noqa: PLC0415 - a service that starts with its tables there does without
    from alembic.config import Config  # noqa: PLC0415

    def literal(path: Path) -> str:
        # configparser would look for a variable after a single percent sign.
        return str(path).replace("%", "%%")

    config = Config()
    config.set_main_option("script_location", literal(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", literal(migrations))
    config.attributes["connection"] = connection
    if revision == "0001" and "alembic_version" not in inspect(connection).get_table_names():
        command.stamp(config, revision)
    command.upgrade(config, to)
