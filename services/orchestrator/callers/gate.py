"""The gate that every call but a health check passes: identity, rights, quotas, audit log."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import grpc
from muse.common.v1.caller_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.callers.audit import AuditRecord, audited
from services.orchestrator.callers.costs import pictures_of
from services.orchestrator.callers.credentials import Credentials, Identity, address_of
from services.orchestrator.callers.quotas import Accounts, CallQuotas
from services.runtime.server.interceptors import is_ours
from services.runtime.server.requests import Context
from services.runtime.wire.errors import RequestError

logger = logging.getLogger(__name__)
GET_STATUS = "/GetStatus"
POLL_S = 2.0  # between two looks at the files

Refresh = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Admission:
    """An admitted call.

    Attributes:
        identity: Who makes it.
        quotas: What it takes of the caller's quotas.
        record: What the audit log will say of it.
    """

    identity: Identity
    quotas: CallQuotas
    record: AuditRecord

    def with_caller(self, request: GenerateRequest) -> GenerateRequest:
        """Returns a checked request with the caller that its stages go by.

        The id is the identity's, and the request's own at most a part of it. A request that names
        no priority has the most urgent one that the policy allows.

        Raises:
            RequestError: PERMISSION_DENIED: the request names a more urgent priority.
        """
        caller, policy = request.caller, self.identity.policy
        if policy.max_priority == "batch":
            if caller.priority == PRIORITY_INTERACTIVE:
                raise denied(self.identity, "requests of priority interactive; name batch, or none")
            caller.priority = PRIORITY_BATCH
        caller.id = self.identity.fairness_id(caller.id)
        return request

    def charge(self, request: GenerateRequest, request_bytes: int) -> None:
        """Takes the pictures and bytes of a checked request.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: the caller has no quota left.
        """
        self.quotas.take("bytes_per_minute", request_bytes)
        self.quotas.take("pictures_per_minute", pictures_of(request))


_admission: ContextVar[Admission] = ContextVar("admission")


def admission() -> Admission:
    """Returns the admission of the call that this task serves.

    Raises:
        LookupError: the call did not pass the gate.
    """
    return _admission.get()


class CallerGate:
    """Admits calls, and writes the audit log."""

    def __init__(
        self,
        credentials: Credentials,
        refreshes: Sequence[Refresh] = (),
        *,
        max_calls: int,
        audit_prompts: bool = False,
    ) -> None:
        """Admits none yet.

        Args:
            credentials: Identifies callers.
            refreshes: Read what credentials and policies are made of again, if it changed.
            max_calls: Calls that the server may have open.
            audit_prompts: Whether the audit log has prompts.
        """
        self._credentials, self._refreshes = credentials, refreshes
        self._accounts, self._max_calls = Accounts(), max_calls
        self._audit_prompts = audit_prompts
        self._watching: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Starts to refresh, every `POLL_S` seconds."""
        self._watching = asyncio.create_task(self._refresh_for_ever())

    async def close(self) -> None:
        """Ends `watch`."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _refresh_for_ever(self) -> None:
        while True:
            for refresh in self._refreshes:
                try:
                    await refresh()
                except Exception:  # what is known stays in force, and the next look may succeed
                    logger.exception("credentials or policies were not refreshed")
            await asyncio.sleep(POLL_S)

    @asynccontextmanager
    async def admitting(self, method: str, context: Context) -> AsyncIterator[None]:
        """Admits a call for the block, in which `admission` returns how.

        Raises:
            RequestError: UNAUTHENTICATED, PERMISSION_DENIED or RESOURCE_EXHAUSTED.
        """
        record = AuditRecord(method, address_of(context.peer()), self._audit_prompts)
        with audited(record, context):
            identity = record.identity = await self._credentials.identify(context)
            check_method(identity, method)
            with self._accounts.open_call(identity.id, identity.policy) as quotas:
                quotas.hold("concurrent_streams", 1)
                quotas.check_share(self._max_calls)
                quotas.take("requests_per_minute", 1)
                _admission.set(Admission(identity, quotas, record))
                yield


def check_method(identity: Identity, method: str) -> None:
    """Checks that a caller may call a method.

    Raises:
        RequestError: PERMISSION_DENIED: its policy does not allow it.
    """
    if method.endswith(GET_STATUS) and not identity.policy.status:
        raise denied(identity, "GetStatus")
    if not is_ours(method) and identity.kind != "address" and not identity.policy.introspection:
        raise denied(identity, "reflection and channelz")


def denied(identity: Identity, what: str) -> RequestError:
    """Returns the PERMISSION_DENIED error of a caller."""
    return RequestError(
        grpc.StatusCode.PERMISSION_DENIED,
        f"the policy of caller {identity.id!r} does not allow {what}",
    )
