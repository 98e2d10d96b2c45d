"""An orchestrator over four small stages, and one that requires credentials."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from services.orchestrator.callers.api_keys import ApiKey, digest_of, new_key
from tests.small_stages import House, house, open_house

__all__ = ["house"]


def bearer(credential: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of a call that presents a credential."""
    return (("authorization", f"Bearer {credential}"),)


@dataclass(frozen=True)
class KeyFile:
    """A file of keys, and the key of each caller."""

    path: Path
    keys: dict[str, str]

    def of(self, house: House, caller: str) -> House:
        """Returns the house as a caller with its key sees it."""
        return replace(house, metadata=bearer(self.keys[caller]))


@asynccontextmanager
async def guarded(
    keys: KeyFile, policies: str | None = None, **settings: Any
) -> AsyncIterator[House]:
    """A house that requires keys, with policies if there are any."""
    if policies is not None:
        path = keys.path.with_name("policies.toml")
        path.write_text(policies)
        settings["policies_file"] = path
    async with open_house(api_keys_file=keys.path, **settings) as house:
        yield house


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[..., KeyFile]:
    """Writes a file with a key for each caller."""

    def write(*callers: str) -> KeyFile:
        keys = {caller: new_key() for caller in callers}
        entries = [ApiKey(caller=caller, digest=digest_of(key)) for caller, key in keys.items()]
        path = tmp_path / "keys.jsonl"
        path.write_text("".join(f"{entry.line()}\n" for entry in entries))
        return KeyFile(path, keys)

    return write
