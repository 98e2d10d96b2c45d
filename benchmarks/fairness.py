"""How long a caller's requests take beside a flood of another's: `python -m benchmarks.fairness`.

The base of `--checkpoints` decodes in this process by the scheduler of its server. One caller sends
a request whenever its last one has ended, first alone, then while another caller has a hundred
requests waiting or running at all times. Callers have equal parts of the device, so twice the time
alone is the floor; a request that comes while all slots are taken also waits for the first to end.
"""

import time
from pathlib import Path

import numpy as np
from cyclopts import App

from benchmarks.measuring import conditions
from benchmarks.ours import random_text
from services.base.spec import BASE
from services.decoding.pool import DecodeRequest
from services.decoding.slots import Progress
from services.decoding.state import Sampling, fresh_row
from services.masked.engine import MaskedEngine
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.wire.caller import Caller
from services.runtime.wire.timing import Timed

FLOOD = 100
STEPS, GUIDANCE = 24, 2.0

app = App(help=__doc__)


class Callers:
    """Two callers of one scheduler."""

    def __init__(self, engine: MaskedEngine, text: np.ndarray) -> None:
        """Warms the engine up."""
        engine.warm_up()
        row = fresh_row(engine.config.tokens, Sampling(steps=STEPS, guidance_scale=GUIDANCE))
        self._request = engine.decode_request(row, text)
        self._scheduler = SlotScheduler[DecodeRequest, Progress](engine.pool, max_queued=4 * FLOOD)
        self._flood = 0

    def seconds(self, requests: int, *, flood: int) -> list[float]:
        """Returns how long each of one caller's requests took, with so many of the other's."""
        found = []
        for _ in range(requests):
            self._fill(flood)
            ended: list[object] = []
            begin_s = time.monotonic()
            self._scheduler.submit(
                self._request, ended.append, stream=False, caller=Caller(id="honest")
            )
            while not ended:
                self._scheduler.tick()
                self._fill(flood)
            assert isinstance(ended[0], Timed)
            found.append(time.monotonic() - begin_s)
        return found

    def _fill(self, flood: int) -> None:
        while self._flood < flood:
            self._flood += 1
            self._scheduler.submit(
                self._request, self._one_ended, stream=False, caller=Caller(id="flood")
            )

    def _one_ended(self, event: object) -> None:
        self._flood -= 1


@app.default
def main(*, checkpoints: Path = Path("checkpoints/demo"), requests: int = 20) -> None:
    """Prints the times of a caller's requests alone and beside a flood.

    Parameters
    ----------
    checkpoints
        Folder with the checkpoint of base.
    requests
        That the caller sends, one after the other, alone and again beside the flood.
    """
    engine = MaskedEngine.load(BASE, checkpoints / "base")
    text = random_text(engine.config)
    callers = Callers(engine, text.embedding[text.mask])
    print(conditions())
    alone = callers.seconds(requests, flood=0)
    beside = callers.seconds(requests, flood=FLOOD)
    for name, found in (("alone", alone), (f"beside {FLOOD} of another caller", beside)):
        print(f"{name}: median {np.median(found):.2f} s, p99 {np.quantile(found, 0.99):.2f} s")
    print(f"p99 beside over p99 alone: {np.quantile(beside, 0.99) / np.quantile(alone, 0.99):.2f}")


if __name__ == "__main__":
    app()
