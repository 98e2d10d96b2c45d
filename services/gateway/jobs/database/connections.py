"""Connections to the database of jobs, and its tables as this version needs them."""

import os
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.gateway.jobs.settings import SQLITE

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_S = 30.0  # that a transaction of SQLite waits for another
LOCK = 0x6D757365  # of PostgreSQL, "muse": one gateway at a time migrates, or adds a job


def migrate(url: URL) -> None:
    """Brings the tables of a database to this version; several gateways may do so at once.

    Raises:
        ValueError: the database cannot be reached, or a later version made its tables.
    """
    engine: Engine | None = None
    try:
        if url.drivername == SQLITE:
            _make_file(Path(url.database or ""))
        engine = create_engine(url, **_arguments(url))
        _serialise(engine)
        with engine.begin() as connection:
            lock(connection)
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            command.upgrade(config, "head")
    except CommandError as error:
        raise ValueError(
            f"jobs_database: expected tables of this version or an earlier one, got: {error}"
        ) from error
    except (SQLAlchemyError, ImportError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise ValueError(
            f"jobs_database: {url.render_as_string()} cannot be used: "
            f"{' '.join(str(reason).split())}"
        ) from error
    finally:
        if engine is not None:
            engine.dispose()


def connect(url: URL) -> AsyncEngine:
    """Returns the connections of an event loop; they are opened as they are needed."""
    driver = "sqlite+aiosqlite" if url.drivername == SQLITE else url.drivername
    engine = create_async_engine(url.set(drivername=driver), pool_pre_ping=True, **_arguments(url))
    _serialise(engine.sync_engine)
    return engine


def lock(connection: Connection) -> None:
    """Has transactions that call this run one after the other; those of SQLite always do."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def _arguments(url: URL) -> dict[str, Any]:
    """Returns the arguments of an engine, whose errors are logged and must not hold prompts."""
    sqlite = {"timeout": BUSY_S, "isolation_level": None}
    return {"hide_parameters": True, "connect_args": sqlite if url.drivername == SQLITE else {}}


def _make_file(path: Path) -> None:
    """Creates a database that only its owner reads, for it has prompts, and its folder."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _serialise(engine: Engine) -> None:
    """Has transactions of SQLite wait for each other where they begin, not fail where they write.

    Source: SQLAlchemy, "SQLite", section "Enabling Non-Legacy SQLite Transactional Modes".
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
