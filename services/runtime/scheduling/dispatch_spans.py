"""The spans of requests that share slots: each dispatch once for itself, and once in each request.

A dispatch belongs to no request alone, so its own span, "batch", begins a trace and is linked to
the spans of the requests it served. Each of these has a "dispatch" for it, linked to the batch.
"""

from typing import Any

from services.runtime.observability import span_attributes
from services.runtime.observability.completed_spans import (
    NEW_TRACE,
    clock_offset_ns,
    epoch_ns,
    record_span,
)
from services.runtime.scheduling.slots import Dispatch, Part, Ticket


def record_dispatch(dispatch: Dispatch[Any, Any]) -> None:
    """Records a dispatch that is over, and notes it in every request in it that is traced.

    Called on the device thread, before the requests' steps are counted down.
    """
    traced = [(ticket, ticket.trace) for ticket in dispatch.tickets if ticket.trace is not None]
    if not traced:
        return
    requests, offset_ns = len(dispatch.tickets), clock_offset_ns()
    attributes = span_attributes.batch(requests=requests, rows=requests, bucket=requests)
    batch = record_span(
        "batch",
        epoch_ns(dispatch.begin_s, offset_ns),
        epoch_ns(dispatch.end_s, offset_ns),
        parent=NEW_TRACE,
        links=[trace for _, trace in traced],
        attributes=attributes,
    )
    for ticket, _ in traced:
        taken = ticket.job.steps_left - ticket.left
        ticket.parts.append(
            Part(
                begin_s=dispatch.begin_s,
                stepped_s=dispatch.end_s - dispatch.handed_out_s,
                end_s=dispatch.end_s,
                batch=batch,
                attributes={
                    **attributes,
                    **span_attributes.steps(taken + 1, taken + dispatch.steps),
                },
            )
        )


def record_request(ticket: Ticket[Any, Any], end_s: float) -> None:
    """Records, below the current span, a request's time in the queue and in its slot.

    Args:
        ticket: The request; it is over.
        end_s: When it ended, by the clock of its arrival.
    """
    if ticket.trace is None:
        return
    offset_ns = clock_offset_ns()
    arrival_ns, end_ns = epoch_ns(ticket.arrival_s, offset_ns), epoch_ns(end_s, offset_ns)
    if ticket.start_s is None:
        record_span("queue", arrival_ns, end_ns)
        return
    start_ns = epoch_ns(ticket.start_s, offset_ns)
    record_span("queue", arrival_ns, start_ns)
    slot = record_span("compute", start_ns, end_ns)
    prefilled_ns = epoch_ns(ticket.start_s + ticket.prefill_s, offset_ns)
    record_span("prefill", start_ns, prefilled_ns, parent=slot)
    for part in list(ticket.parts):
        stepped_ns = epoch_ns(part.stepped_s, offset_ns)
        record_span(
            "dispatch",
            epoch_ns(part.begin_s, offset_ns),
            stepped_ns,
            parent=slot,
            links=[part.batch],
            attributes=part.attributes,
        )
        if part.end_s > part.stepped_s:
            record_span("device-to-host", stepped_ns, epoch_ns(part.end_s, offset_ns), parent=slot)
