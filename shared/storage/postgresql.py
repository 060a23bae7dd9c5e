"""PostgreSQL for several machines: psycopg, a schema per service, one advisory write lock."""

from __future__ import annotations

import zlib

from sqlalchemy import Connection, Engine, create_engine, event, text

LOCK_CLASS = 0x_D00B
"""The first key of this project's advisory locks; the second one tells the services apart."""


def postgresql_engine(url: str, schema: str) -> Engine:
    """Return an engine for one service's schema: few connections, time-outs, dead ones replaced.

    Args:
        url: "postgresql://...", with whatever credentials it needs.
        schema: Named as the service's package; its own tables stand there.
    """
    engine = create_engine(
        "postgresql+psycopg://" + url.partition("://")[2],
        pool_size=4,
        max_overflow=4,
        pool_timeout=30,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "options": f"-csearch_path={schema} -clock_timeout=30s",
        },
    )
    lock = {"a": LOCK_CLASS, "b": zlib.crc32(schema.encode()) & 0x7FFFFFFF}

    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("reading"):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        elif options.get("alone", True):
            # The lock comes first: what is read after it is the last state.
            connection.execute(text("SELECT pg_advisory_xact_lock(:a, :b)"), lock)

    event.listen(engine, "begin", begin)
    return engine
