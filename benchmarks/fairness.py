"""How long a caller's requests take beside a flood of another's: `python -m benchmarks.fairness`.

Base or superres of `--checkpoints` decodes in this process by the scheduler of its server. One
caller sends a request at a random time after its last one has ended, first alone, then while
another caller has a hundred requests waiting or running at all times.
"""

import random
import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cyclopts import App

from benchmarks.measuring import conditions
from benchmarks.ours import random_text
from services.base.spec import BASE
from services.decoding.pool import DecodeRequest
from services.decoding.slots import Progress
from services.decoding.state import Sampling, fresh_row
from services.masked.engine import MaskedEngine
from services.masked.spec import MaskedSpec
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.wire.caller import Caller
from services.runtime.wire.timing import Timed
from services.superres.spec import SUPERRES

FLOOD = 100
GUIDANCE = 2.0
IDLE_S = 0.0002  # between looks for a request while there is none
SPECS: dict[str, MaskedSpec[Any]] = {"base": BASE, "superres": SUPERRES}

app = App(help=__doc__)


class Callers:
    """Two callers of one scheduler."""

    def __init__(self, engine: MaskedEngine[Any]) -> None:
        """Warms the engine up."""
        engine.warm_up()
        config, steps = engine.config, engine.spec.default_steps
        row = fresh_row(config.tokens, Sampling(steps=steps, guidance_scale=GUIDANCE))
        text = random_text(config)
        shapes = engine.spec.condition_shapes(config)
        self._request = engine.decode_request(
            row,
            text.embedding[text.mask],
            *(np.zeros(shape.shape[1:], shape.dtype) for shape in shapes),
        )
        self._scheduler = SlotScheduler[DecodeRequest, Progress](engine.pool, max_queued=4 * FLOOD)
        self._flood = 0

    def seconds(self, requests: int, *, flood: int, pause_s: float) -> list[float]:
        """Returns how long each of one caller's requests took, with so many of the other's.

        A request comes up to `pause_s` after the last one has ended.
        """
        chance, found = random.Random(1), list[float]()
        for number in range(requests):
            threading.Timer(chance.uniform(0, pause_s), self._send, [found]).start()
            while len(found) == number:
                self._fill(flood)
                if not self._scheduler.tick():
                    time.sleep(IDLE_S)
        return found

    def _send(self, found: list[float]) -> None:
        begin_s = time.monotonic()

        def end(event: object) -> None:
            assert isinstance(event, Timed)
            found.append(time.monotonic() - begin_s)

        self._scheduler.submit(self._request, end, stream=False, caller=Caller(id="honest"))

    def _fill(self, flood: int) -> None:
        while self._flood < flood:
            self._flood += 1
            self._scheduler.submit(
                self._request, self._one_ended, stream=False, caller=Caller(id="flood")
            )

    def _one_ended(self, event: object) -> None:
        self._flood -= 1


@app.default
def main(
    *,
    checkpoints: Path = Path("checkpoints/demo"),
    stage: Literal["base", "superres"] = "base",
    requests: int = 20,
) -> None:
    """Prints the times of a caller's requests alone and beside a flood.

    Parameters
    ----------
    checkpoints
        Folder with the checkpoint of the stage.
    stage
        That decodes, as many steps as are its default.
    requests
        That the caller sends, one after the other, alone and again beside the flood.
    """
    callers = Callers(MaskedEngine.load(SPECS[stage], checkpoints / stage))
    print(conditions())
    (usual_s,) = callers.seconds(1, flood=0, pause_s=0.0)
    alone = callers.seconds(requests, flood=0, pause_s=usual_s)
    beside = callers.seconds(requests, flood=FLOOD, pause_s=usual_s)
    quantiles = {"median": 0.5, "p99": 0.99}
    for name, found in (("alone", alone), (f"beside {FLOOD} of another caller", beside)):
        print(f"{stage} {name}:", end="")
        for quantile, share in quantiles.items():
            print(f" {quantile} {np.quantile(found, share):.3f} s", end="")
        print()
    for quantile, share in quantiles.items():
        ratio = np.quantile(beside, share) / np.quantile(alone, share)
        print(f"{quantile} beside over alone: {ratio:.2f}")


if __name__ == "__main__":
    app()
