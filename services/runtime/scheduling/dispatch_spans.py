"""Spans of requests that share slots: one per dispatch, and one per request in it.

A dispatch serves many requests, so its span "batch" starts a trace of its own and is linked to the
spans of the requests. Each request has a span "dispatch" that is linked to the batch.
"""

from collections.abc import Collection
from itertools import zip_longest
from typing import Any

from services.runtime.observability import span_attributes
from services.runtime.observability.completed_spans import (
    NEW_TRACE,
    clock_offset_ns,
    epoch_ns,
    record_span,
)
from services.runtime.scheduling.slots import Dispatch, RequestState, Stay, TracedDispatch


def record_dispatch(dispatch: Dispatch, states: Collection[RequestState[Any, Any]]) -> None:
    """Records the span of a dispatch, and adds the dispatch to every traced request in it.

    Called on the device thread, before the scheduler counts down the steps of the requests.
    """
    traced = [(state, state.trace) for state in states if state.trace is not None]
    if not traced:
        return
    count, offset_ns = len(states), clock_offset_ns()
    attributes = span_attributes.batch(requests=count, rows=count, bucket=count)
    batch = record_span(
        "batch",
        epoch_ns(dispatch.start_s, offset_ns),
        epoch_ns(dispatch.end_s, offset_ns),
        parent=NEW_TRACE,
        links=[trace for _, trace in traced],
        attributes=attributes,
    )
    for state, _ in traced:
        taken = state.request.steps_left - state.steps_left
        own = {**attributes, **span_attributes.steps(taken + 1, taken + dispatch.steps)}
        state.dispatches.append(TracedDispatch(dispatch, batch, own))


def record_request(state: RequestState[Any, Any], end_s: float) -> None:
    """Records a request's times in the queue and in its slots as children of the current span.

    Args:
        state: The finished request.
        end_s: Its end, by the clock of its arrival.
    """
    if state.trace is None:
        return
    offset_ns = clock_offset_ns()
    stays = list(state.stays)  # before the waits: the device thread may end a stay meanwhile
    for wait_start_s, stay in zip_longest(state.wait_starts_s, stays):
        wait_start_ns = epoch_ns(wait_start_s, offset_ns)
        if stay is None:  # it still waited at its end
            record_span("queue", wait_start_ns, epoch_ns(end_s, offset_ns))
            return
        record_span("queue", wait_start_ns, epoch_ns(stay.start_s, offset_ns))
        _record_stay(state, stay, end_s if stay.end_s is None else stay.end_s, offset_ns)


def _record_stay(state: RequestState[Any, Any], stay: Stay, end_s: float, offset_ns: int) -> None:
    start_ns = epoch_ns(stay.start_s, offset_ns)
    slot = record_span("compute", start_ns, epoch_ns(end_s, offset_ns))
    prefilled_ns = epoch_ns(stay.start_s + stay.prefill_s, offset_ns)
    record_span("prefill", start_ns, prefilled_ns, parent=slot)
    for each, batch, attributes in list(state.dispatches):
        if not stay.start_s <= each.start_s < end_s:
            continue
        begun_ns, stepped_ns = (
            epoch_ns(each.start_s, offset_ns),
            epoch_ns(each.stepped_s, offset_ns),
        )
        record_span(
            "dispatch", begun_ns, stepped_ns, parent=slot, links=[batch], attributes=attributes
        )
        if each.end_s > each.stepped_s:
            fetched_ns = epoch_ns(each.end_s, offset_ns)
            record_span("device-to-host", stepped_ns, fetched_ns, parent=slot)
