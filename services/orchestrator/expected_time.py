"""The least time that a request takes, from the fastest recent calls like those that it needs.

A request that cannot end in time even if every stage is free is refused before any stage works for
it. Only the fastest calls count, so that a slow one refuses nothing, and only recent ones, so that
stages that have become faster are found out.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import grpc
from muse.common.v1.decoding_pb2 import Sampling
from muse.common.v1.stage_pb2 import StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.calls import Deadline
from services.orchestrator.replicas.work import rows_of
from services.runtime.observability.instruments import count_refusal
from services.runtime.wire.errors import RequestError
from services.stages import DECODING

RECENT_S = 60.0
WHOLE_DECODES = (None, "mask_free_edit")  # edits that decode as many steps as the request says


@dataclass(frozen=True)
class _Fastest:
    seconds: float
    measured_s: float


class FastestCalls:
    """Seconds of compute of the fastest recent call, by stage, rows of a step, and steps."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts without calls; `clock` returns seconds."""
        self._clock = clock
        self._calls: dict[Hashable, dict[int, _Fastest]] = {}

    def measure(self, timing: StageTiming, *, rows: int = 1, steps: int = 1) -> None:
        """Adds a call of a stage, of a number of steps."""
        calls, now_s = self._calls.setdefault((timing.stage, rows), {}), self._clock()
        fastest = calls.get(steps)
        if fastest is None or timing.compute_s <= fastest.seconds or self._is_old(fastest):
            calls[steps] = _Fastest(timing.compute_s, now_s)

    def seconds(self, stage: str, *, rows: int = 1, steps: int = 1) -> float:
        """Returns the least seconds of a call; 0 if none like it was made recently.

        A call of fewer steps takes its share of one of more steps, and at least as long as one of
        fewer.
        """
        calls = self._calls.get((stage, rows), {})
        recent = [each for each in calls if not self._is_old(calls[each])]
        if more := [each for each in recent if each >= steps]:
            return calls[min(more)].seconds * steps / min(more)
        return calls[max(recent)].seconds if recent else 0.0

    def after(self, stage: str, request: GenerateRequest) -> float:
        """Returns the least seconds of the stages that come after one of an image's decodes."""
        later = DECODING[DECODING.index(stage) + 1 :] if stage in DECODING else DECODING
        decoding_s = sum(self._decode_s(each, request) for each in later)
        return decoding_s + self.seconds("tokenizer")

    def check(self, request: GenerateRequest, deadline: Deadline) -> None:
        """Checks that a request with every sampling parameter set can end in time.

        Raises:
            RequestError: DEADLINE_EXCEEDED: it cannot.
        """
        left_s = deadline.left_s()
        least_s = self.after("text_encoder", request)
        if request.prompt or request.negative_prompt:
            least_s += self.seconds("text_encoder")
        if left_s is not None and least_s > left_s:
            raise count_refusal(
                "too_late",
                RequestError(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"the stages take at least {least_s:.3g} s for this request, and its deadline "
                    f"is in {left_s:.3g} s: allow more time, or fewer steps",
                ),
            )

    def _decode_s(self, stage: str, request: GenerateRequest) -> float:
        parameters: Sampling = getattr(request, stage)
        # A decode of a part of a picture has no more steps than open tokens, which may be few.
        steps = parameters.min_steps or parameters.steps
        if request.WhichOneof("edit") not in WHOLE_DECODES:
            steps = 1
        return self.seconds(stage, rows=rows_of(parameters), steps=steps)

    def _is_old(self, fastest: _Fastest) -> bool:
        return self._clock() - fastest.measured_s > RECENT_S
