"""The audit log: one line for each call, by the logger `muse.audit`, of who did what at what cost.

A line has neither prompts, unless they are asked for, nor anything of a credential.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from muse.orchestrator.v1.orchestrator_pb2 import GeneratedImage, GenerateRequest

from services.orchestrator.callers.credentials import Identity
from services.orchestrator.timeline import Call
from services.runtime.server.endings import (
    deadline_of,
    status_of_aborted,
    status_of_cancelled,
)
from services.runtime.server.metrics_interceptor import kind_of, kind_of_method
from services.runtime.server.requests import Context
from services.runtime.wire.caller import MAX_ID_LENGTH
from services.runtime.wire.errors import RequestError, shortened

logger = logging.getLogger("muse.audit")


@dataclass(eq=False)
class AuditRecord:
    """What the audit log says of one call.

    Attributes:
        method: Full name of the method.
        address: Address that the call comes from.
        prompts: Whether the line has the prompts.
        identity: Who calls; None if the call proved nothing.
        calls: Every answered call of a stage that was made for this one.
        fields: Further fields of the line, of the request and its pictures.
    """

    method: str
    address: str
    prompts: bool
    identity: Identity | None = None
    calls: set[Call] = field(default_factory=set)
    fields: dict[str, Any] = field(default_factory=dict)

    def describe(self, request: GenerateRequest) -> None:
        """Adds the fields of a request; a text is cut to the length of a log line's texts."""
        self.fields |= {
            "kind": kind_of(self.method, request),
            "caller_name": shortened(request.caller.id, MAX_ID_LENGTH),
            "request_bytes": request.ByteSize(),
        }
        if self.prompts:
            self.fields |= {"prompt": request.prompt, "negative_prompt": request.negative_prompt}

    def add_image(self, image: GeneratedImage) -> None:
        """Counts a picture that is sent."""
        self.fields["pictures"] = self.fields.get("pictures", 0) + 1
        pixels = image.width_px * image.height_px
        self.fields["pixels"] = self.fields.get("pixels", 0) + pixels

    def log(self, status: str, duration_s: float) -> None:
        """Writes the line."""
        extra = {
            "caller": "" if self.identity is None else self.identity.id,
            "credential": "none" if self.identity is None else self.identity.kind,
            "address": self.address,
            "method": self.method,
            "kind": kind_of_method(self.method),
            "pictures": 0,
            "pixels": 0,
            **self.fields,
            "status": status,
            "duration_s": duration_s,
            "device_s": sum(call.timing.device_s for call in self.calls),
        }
        logger.info("a call has ended", extra=extra)


@contextmanager
def audited(record: AuditRecord, context: Context) -> Iterator[AuditRecord]:
    """Writes the line of a call when its block ends, however it ends."""
    begun_s, status = time.monotonic(), grpc.StatusCode.INTERNAL.name
    deadline_s = deadline_of(context)
    try:
        yield record
        status = grpc.StatusCode.OK.name
    except RequestError as error:
        status = error.code.name
        raise
    except asyncio.CancelledError:
        status = status_of_cancelled(deadline_s).name
        raise
    except grpc.aio.AbortError:
        status = status_of_aborted(context).name
        raise
    finally:
        record.log(status, time.monotonic() - begun_s)
