"""Policies: what a caller may ask for, and how much of it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

Priorities = Literal["interactive", "batch"]
Rate = Literal["requests_per_minute", "pictures_per_minute", "bytes_per_minute"]
Concurrency = Literal["concurrent_streams", "steps_in_flight"]
QUOTAS: tuple[str, ...] = (*get_args(Rate), *get_args(Concurrency))
DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What one caller may do. A quota of None is no bound, one of 0 allows nothing.

    Attributes:
        requests_per_minute: Calls, of any method but health checks.
        pictures_per_minute: Pictures to make, candidates of `best_of` included.
        bytes_per_minute: Bytes of the requests.
        concurrent_streams: Calls that are open at once.
        steps_in_flight: Steps of base and superres that all open calls ask for together.
        max_priority: The most urgent priority that a request may name.
        status: Whether the caller may call GetStatus.
        introspection: Whether a caller with a credential may use reflection and channelz.
        names_callers: Whether requests name callers of the caller's own in `Caller.id`, such as the
            users of a gateway: they share the slots fairly, and the caller's quotas together.
    """

    requests_per_minute: int | None = None
    pictures_per_minute: int | None = None
    bytes_per_minute: int | None = None
    concurrent_streams: int | None = None
    steps_in_flight: int | None = None
    max_priority: Priorities = "interactive"
    status: bool = True
    introspection: bool = False
    names_callers: bool = False


@dataclass(frozen=True)
class Policies:
    """The policies of a file.

    Attributes:
        by_name: Every policy; callers without another one have the policy "default".
        of_callers: Name of the policy of a caller, by the caller's id.
    """

    by_name: Mapping[str, Policy] = field(default_factory=lambda: {DEFAULT: Policy()})
    of_callers: Mapping[str, str] = field(default_factory=dict)

    def find(self, caller: str, named: str | None = None) -> Policy | None:
        """Returns the policy that a credential names, or else the caller's; None if unknown."""
        return self.by_name.get(named or self.of_callers.get(caller, DEFAULT))


def parse_policies(text: str) -> Policies:
    """Parses a TOML file of tables [policy.NAME], and a table [callers] of names by caller.

    Raises:
        ValueError: the file is no TOML, or has a field or value that no policy has.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"expected TOML: {error}") from None
    if unknown := set(content) - {"policy", "callers"}:
        raise ValueError(f"expected tables [policy.NAME] and [callers], got {sorted(unknown)}")
    tables, callers = content.get("policy", {}), content.get("callers", {})
    if not isinstance(tables, dict) or not isinstance(callers, dict):
        raise ValueError("expected tables [policy.NAME] and [callers]")
    by_name = {DEFAULT: Policy(), **{name: _parse(name, each) for name, each in tables.items()}}
    for caller, name in callers.items():
        if not isinstance(name, str) or name not in by_name:
            raise ValueError(f"callers: {caller!r} has the policy {name!r}, which is not there")
    return Policies(by_name, callers)


def _parse(name: str, table: Any) -> Policy:
    where, known = f"policy.{name}", [each.name for each in fields(Policy)]
    if not isinstance(table, dict):
        raise ValueError(f"{where}: expected a table, got {table!r}")
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{where}: expected some of {', '.join(known)}, got {key!r}")
        if key in QUOTAS:
            expected, fits = "a whole number from 0 up", type(value) is int and value >= 0
        elif key == "max_priority":
            expected, fits = " or ".join(get_args(Priorities)), value in get_args(Priorities)
        else:
            expected, fits = "true or false", isinstance(value, bool)
        if not fits:
            raise ValueError(f"{where}.{key}: expected {expected}, got {value!r}")
    return Policy(**table)
