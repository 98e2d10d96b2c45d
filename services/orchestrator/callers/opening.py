"""The gate of a server, as its settings say."""

import asyncio
from functools import partial

from services.orchestrator.callers.api_keys import parse_keys
from services.orchestrator.callers.credentials import Credentials
from services.orchestrator.callers.gate import CallerGate, Refresh
from services.orchestrator.callers.policies import Policies, parse_policies
from services.orchestrator.callers.settings import CallerSettings
from services.orchestrator.callers.signing_keys import open_signing_keys
from services.orchestrator.callers.tokens import TokenVerifier
from services.orchestrator.callers.watched_file import WatchedFile


def open_gate(settings: CallerSettings) -> CallerGate:
    """Reads the files of the settings, and returns the gate.

    Raises:
        ValueError: a file cannot be read or does not parse, or an API key has a policy that the
            file of policies does not have.
    """
    policies = keys = tokens = None
    refreshes: list[Refresh] = []
    if settings.policies_file is not None:
        policies = WatchedFile(settings.policies_file, parse_policies)
        refreshes.append(partial(asyncio.to_thread, policies.refresh))
    if settings.api_keys_file is not None:
        keys = WatchedFile(settings.api_keys_file, parse_keys)
        refreshes.append(partial(asyncio.to_thread, keys.refresh))
        known = (Policies() if policies is None else policies.value).by_name
        if unknown := keys.value.policies() - set(known):
            raise ValueError(
                f"{settings.api_keys_file}: keys have the policies {sorted(unknown)}, which "
                "--policies-file does not have"
            )
    if settings.jwt_jwks:
        signing_keys = open_signing_keys(settings.jwt_jwks)
        refreshes.append(signing_keys.refresh)
        tokens = TokenVerifier(
            signing_keys,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            algorithms=settings.jwt_algorithms,
            leeway_s=settings.jwt_leeway_s,
            caller_claim=settings.jwt_caller_claim,
        )
    return CallerGate(
        Credentials(policies, keys, tokens),
        refreshes,
        max_calls=settings.max_calls,
        audit_prompts=settings.audit_prompts,
    )
