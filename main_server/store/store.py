"""The main server's database: where its transactions begin.

The modules beside this one hold the SQL, as functions that take the connection of a transaction.
A verb opens the transaction and calls as many of them as must be one step:

    with server.store.write() as connection:
        if find_pins(connection).get(detector) is None:
            abandon_round(connection, plan, server.clock(), "...")
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from main_server.store.tables import MIGRATIONS
from shared.storage.database import Database

__all__ = ["Connection", "Store"]


@dataclass(frozen=True)
class Store:
    """The main server's database.

    Attributes:
        database: SQLite in the main server's folder, or PostgreSQL.
    """

    database: Database

    @classmethod
    def open(cls, folder: Path, url: str | None = None) -> Store:
        """Open the database, and make its tables if it is empty.

        Args:
            folder: The main server's own folder.
            url: Address of PostgreSQL; None for SQLite in the folder.

        Raises:
            SettingsError: It was made by a newer version, or needs an upgrade.
            StorageFailed: It cannot be opened.
        """
        return cls(Database.open(folder, MIGRATIONS, url))

    def write(self, alone: bool = True) -> AbstractContextManager[Connection]:
        """Begin a transaction that may write.

        Args:
            alone: False for a single statement, which is one step without the write lock.

        Returns:
            The transaction: committed and on disk when the block ends, undone if it raises.

        Raises:
            StorageFailed: It cannot be written; nothing of the transaction was kept.
            StorageUnavailable: The database does not answer.
        """
        return self.database.write(alone)

    def read(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that only reads, and sees one state of everything.

        Raises:
            StorageFailed: It cannot be read.
            StorageUnavailable: The database does not answer.
        """
        return self.database.read()
