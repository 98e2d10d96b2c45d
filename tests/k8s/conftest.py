"""`muse deploy` in this process."""

import functools
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Its exit status.
        out: What it printed.
        error: Its one line about what went wrong, or "".
    """

    status: int
    out: str
    error: str


Muse = Callable[..., Ended]  # of the words after `muse deploy`


@pytest.fixture(scope="session")
def render_once() -> Callable[[Path], str]:
    """Renders a folder of the repository once; kubectl takes seconds."""
    from k8s.checks.rendering import render

    return functools.cache(render)


@pytest.fixture
def muse(
    rendered: object,
    render_once: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Muse:
    """Runs `muse deploy` in this process; wants something that renders, as `rendered` does."""
    from k8s.deployment import overlays
    from tools.cli.main import main

    monkeypatch.setattr(overlays, "render", render_once)

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["muse", "deploy", *words])
        ended: SystemExit | None = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of cyclopts: it takes sys.argv
                main()
        except SystemExit as error:
            ended = error
        code = 0 if ended is None or ended.code is None else ended.code
        printed = capsys.readouterr()
        if isinstance(code, str):
            return Ended(status=1, out=printed.out, error=code)
        return Ended(status=code, out=printed.out, error=printed.err)

    return run
