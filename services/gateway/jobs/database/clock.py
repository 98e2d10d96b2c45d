"""The database's clock: leases must not depend on how the clocks of gateways differ."""

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

UNIX_EPOCH = 2440587.5  # as a Julian day


class database_now(FunctionElement[float]):  # a function of SQL
    """Seconds since 1970 at which the statement runs."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _of_sqlite(*_: Any, **__: Any) -> str:
    return f"((julianday('now') - {UNIX_EPOCH}) * 86400.0)"


@compiles(database_now, "postgresql")
def _of_postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"
