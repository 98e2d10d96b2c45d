"""What is fuzzed: the modules in targets/, and where their cases lie."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

HERE = Path(__file__).parent
NAMES = tuple(sorted(file.stem for file in (HERE / "targets").glob("*.py")))


class Target(Protocol):
    """A module of targets/.

    Attributes:
        MODULES: Packages and modules whose lines it is to reach.
        MAX_BYTES: Length of the longest case.
    """

    MODULES: tuple[str, ...]
    MAX_BYTES: int

    def opened(self) -> AbstractContextManager[Callable[[bytes], None]]:
        """Returns a context with the check of one case, which raises if the product is wrong."""

    def seeds(self) -> Iterator[tuple[str, bytes]]:
        """Yields name and content of cases to begin with, mostly good ones."""


def load(name: str) -> Target:
    """Imports a target."""
    return cast(Target, import_module(f"tests.fuzz.targets.{name}"))


def kept(name: str) -> Path:
    """Returns the folder of the cases that the repository keeps: what runs found."""
    return HERE / "corpus" / name


def found(name: str) -> Path:
    """Returns the folder of the cases that runs on this machine found."""
    return HERE.parents[1] / "out" / "fuzz" / name
