"""What a request takes beyond its stages' compute: wire, orchestrator, queues, the picture's file.

`python -m benchmarks.overhead` (`--requests 2` to see that it runs; `--server HOST:PORT` for a
stack that is up already). One blocking client sends requests one after another to a warm stack, so
that nothing waits for another request. What is left of a request's time after the sum of its
stages' `compute_s` is overhead.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cyclopts import App
from muse_client import MuseClient
from muse_client.events import GeneratedImage

from benchmarks.measuring import Spread, conditions
from tools.local import local_stack

TARGET_SHARE, TARGET_MS = 0.05, 15.0  # of a request's time, or so many milliseconds
WARM_UPS = 3

app = App(help=__doc__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Where the time of one request went, in milliseconds.

    Attributes:
        total: From the client's call to its picture.
        compute: In the stages, summed up.
        queue: Waiting in the stages, summed up.
        transfer: What the orchestrator waited for the stages beyond both.
    """

    total: float
    compute: float
    queue: float
    transfer: float

    @property
    def overhead(self) -> float:
        """All but compute."""
        return self.total - self.compute

    @property
    def rest(self) -> float:
        """Overhead outside of calls of stages: the orchestrator, the client, and the file."""
        return self.overhead - self.queue - self.transfer


def account(total_s: float, picture: GeneratedImage) -> Request:
    """Sums the stages of one picture up.

    Args:
        total_s: From the call to the picture.
        picture: With its timings.
    """
    rows = picture.timings
    return Request(
        total=1e3 * total_s,
        compute=1e3 * sum(row.compute_s for row in rows),
        queue=1e3 * sum(row.queue_s for row in rows),
        transfer=1e3 * sum(row.transfer_s for row in rows),
    )


def measure(client: MuseClient, prompt: str, requests: int) -> list[Request]:
    """Sends requests one after another, the first ones uncounted."""
    accounts = []
    for index in range(WARM_UPS + requests):
        begun = time.perf_counter()
        (picture,) = client.generate(prompt, seed=index)
        accounts.append(account(time.perf_counter() - begun, picture))
    return accounts[WARM_UPS:]


@contextmanager
def running(server: str | None, checkpoints: Path) -> Iterator[str]:
    """Yields the address of a stack: one that is up already, or one of its own."""
    if server is not None:
        yield server
        return
    with tempfile.TemporaryFile("w") as log, local_stack(checkpoints, log) as stack:
        yield stack.address


@app.default
def main(
    *,
    requests: int = 30,
    server: str | None = None,
    checkpoints: Path = Path("checkpoints/demo"),
    prompt: str = "a 3D picture of an owl on a blue background",
) -> None:
    """Prints a request's time, its stages' compute and the difference.

    Parameters
    ----------
    requests
        Requests that count; a few go before.
    server
        Address of an orchestrator; by default a stack is started and stopped.
    checkpoints
        What the stack that is started serves.
    prompt
        Of every request.
    """
    print(conditions("jax", "grpcio"))
    with running(server, checkpoints) as address, MuseClient(address) as client:
        accounts = measure(client, prompt, requests)
    print(f"{server or checkpoints}, one request at a time; ms, median (min-max) of {requests}")
    for name in ("total", "compute", "overhead", "queue", "transfer", "rest"):
        print(f"{name:10}{Spread([getattr(each, name) for each in accounts]):.1f}")
    share = Spread([100 * each.overhead / each.total for each in accounts])
    print(
        f"overhead is {share:.1f} % of a request (target <= {TARGET_SHARE:.0%} or {TARGET_MS:g} ms)"
    )


if __name__ == "__main__":
    app()
