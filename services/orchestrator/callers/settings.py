"""Command-line settings of credentials, policies and the audit log."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from services.runtime.server.settings import ServerSettings

# Of public keys only: "none" proves nothing, and whoever can check an HS256 can make one.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"]
MAX_LEEWAY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class CallerSettings(ServerSettings):
    """Settings of who calls, and how much.

    Attributes:
        api_keys_file: File of the digests of API keys, as `muse keys new` prints them. With such a
            file, or an issuer of tokens, every call but a health check needs a credential. Read
            again when it changes.
        jwt_issuer: Issuer of the JSON Web Tokens that callers may present: their claim `iss`.
        jwt_audience: Audience that a token must be for: its claim `aud`.
        jwt_jwks: Public keys of the issuer: the https:// URL of a JWKS, or a file.
        jwt_algorithms: Algorithms that the signature of a token may have.
        jwt_leeway_s: Seconds by which the clocks of issuer and server may differ.
        jwt_caller_claim: Claim of a token that is the caller's id.
        policies_file: TOML file of policies: quotas, priorities and rights of callers. Read again
            when it changes. Without one nothing is bounded by caller.
        audit_prompts: Whether the audit log has the prompts.
    """

    api_keys_file: Path | None = None
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_jwks: str = ""
    jwt_algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    jwt_leeway_s: float = 5.0
    jwt_caller_claim: str = "sub"
    policies_file: Path | None = None
    audit_prompts: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        token_settings = ("jwt_issuer", "jwt_audience", "jwt_jwks")
        missing = [name for name in token_settings if not getattr(self, name)]
        if 0 < len(missing) < len(token_settings):
            raise ValueError(f"{missing[0]}: expected a value beside the other jwt_ settings")
        if not self.jwt_algorithms:
            raise ValueError("jwt_algorithms: expected at least one, got none")
        for algorithm in self.jwt_algorithms:
            if algorithm not in get_args(Algorithm):
                raise ValueError(
                    f"jwt_algorithms: expected some of {', '.join(get_args(Algorithm))}, "
                    f"got {algorithm}"
                )
        if not 0 <= self.jwt_leeway_s <= MAX_LEEWAY_S:
            raise ValueError(
                f"jwt_leeway_s: expected 0 to {MAX_LEEWAY_S:g}, got {self.jwt_leeway_s}"
            )
        if not self.jwt_caller_claim:
            raise ValueError("jwt_caller_claim: expected the name of a claim, got an empty one")
