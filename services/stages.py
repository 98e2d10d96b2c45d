"""The list of stages: order, names, ports, stubs, and the fingerprints that each needs and gives.

Nothing here imports gRPC or JAX until a stub is asked for, so every command can read the list.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any, Literal

StageName = Literal["text_encoder", "base", "superres", "tokenizer"]
ORCHESTRATOR = "orchestrator"
ORCHESTRATOR_PORT = 50050
NO_STAGE = "none"  # address of a stage that a system does without
GATEWAY = "gateway"
GATEWAY_PORT = 8080


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One service of the pipeline.

    Attributes:
        name: Name in messages, settings, metrics and of the package: "text_encoder".
        port: Port on which its server listens by default.
        checkpoints: Folders of its checkpoints, under the root of all checkpoints.
        needs: Roles of the fingerprints that must be those of another stage, and which stage.
        gives: Roles of the fingerprints that other stages need.
        decodes: Whether it decodes tokens in steps, so that it takes sampling parameters.
    """

    name: StageName
    port: int
    checkpoints: tuple[str, ...]
    needs: Mapping[str, StageName] = field(default_factory=dict)
    gives: tuple[str, ...] = ()
    decodes: bool = False

    @property
    def address(self) -> str:
        """Address of a server on this machine."""
        return f"127.0.0.1:{self.port}"

    @property
    def deployment(self) -> str:
        """Name of its Deployment and of its image: "text-encoder"."""
        return self.name.replace("_", "-")

    def stub(self, channel: Any) -> Any:
        """Returns its stub on a channel, or on anything that makes calls as a channel does."""
        return generated(self.name, f"{service_of(self.name)}Stub")(channel)

    def status_request(self) -> Any:
        """Returns the request of its GetStatus."""
        return resolve_name(f"muse.{self.name}.v1.{self.name}_pb2:GetStatusRequest")()


def service_of(server: str) -> str:
    """Returns the name of a server's gRPC service: "TextEncoderService" of "text_encoder"."""
    return f"{server.title().replace('_', '')}Service"


def generated(server: str, name: str) -> Any:
    """Returns what a server's generated module defines for gRPC under a name."""
    return resolve_name(f"muse.{server}.v1.{server}_pb2_grpc:{name}")


STAGES: Mapping[StageName, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="text_encoder",
            port=50051,
            checkpoints=("text_encoder",),
            gives=("encoder",),
        ),
        Stage(
            name="base",
            port=50053,
            checkpoints=("base",),
            needs={"encoder": "text_encoder", "codebook": "tokenizer"},
            gives=("codebook",),
            decodes=True,
        ),
        Stage(
            name="superres",
            port=50054,
            checkpoints=("superres",),
            needs={"encoder": "text_encoder", "low_codebook": "base", "codebook": "tokenizer"},
            decodes=True,
        ),
        Stage(
            name="tokenizer",
            port=50052,
            checkpoints=("tokenizer/low", "tokenizer/high"),
            gives=("low_codebook", "codebook"),
        ),
    )
}
DECODING = tuple(stage.name for stage in STAGES.values() if stage.decodes)
