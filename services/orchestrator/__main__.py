"""The server of the public API: `python -m services.orchestrator`."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.orchestrator.callers.settings import CallerSettings
from services.orchestrator.safety import PolicyName
from services.runtime.server.certificates import CertificateFiles
from services.runtime.server.process import (
    ServerError,
    Service,
    command_line,
    run_command_line,
)
from services.runtime.server.tls_settings import check_key_pair
from services.runtime.wire.errors import RequestError
from services.stages import NO_STAGE, ORCHESTRATOR, ORCHESTRATOR_PORT, STAGES, StageName

PAUSE_S = 0.25
MAX_HEDGED_PERCENT = 10  # more would be a noticeable load


@dataclass(frozen=True, kw_only=True)
class Settings(CallerSettings):
    """Settings of the orchestrator.

    Attributes:
        port: Port to listen on; 0 takes a free one.
        max_message_mib: Size of the largest message, in MiB: by default enough for any picture to
            edit and its mask.
        discovery: Source of a stage's replicas. "dns": its address, which may be several separated
            by commas, or "dns:///NAME:PORT", where gRPC takes turns between all addresses that DNS
            returns. "kubernetes": the ready pods of the Service that its address names,
            "dns:///NAME:PORT" too; each request goes to the pod with the least outstanding work.
        text_encoder: Address of the text encoder.
        tokenizer: Address of the tokenizer.
        base: Address of the base transformer.
        superres: Address of the super-resolution transformer; "none" for a system without one,
            whose tokenizer decodes the base's tokens to the picture.
        stage_tls_ca: File of the authorities that sign the stages' certificates, in PEM. With it
            the stages are called over TLS, without it in plain text. The three files are read
            again when they change.
        stage_tls_cert: File of the certificate that the stages are shown, in PEM; none by default.
        stage_tls_key: File of its private key, in PEM without a password.
        scorer: Scorer that ranks the candidates of `best_of`: "clip:FOLDER" of a checkpoint that
            transformers saved. None by default.
        hedged_percent: Largest percentage of a stage's calls that are sent to a second replica,
            once they take longer than 99% of calls like them; 0 for none.
        c2pa_cert: File of the certificate, in PEM and with its intermediate authorities, that signs
            C2PA manifests in the files of pictures. None by default, for no manifests.
        c2pa_key: File of its private key, in PEM without a password.
        safety_policy: What is done with pictures that a classifier takes for explicit: "off" loads
            none, "tag" writes its score into the picture's file, "blur" blurs them, "block" does
            not send them. A request may ask for a stricter policy than this one, unless it is off.
        safety_threshold: Score, more than 0 and at most 1, from which on a picture is blurred or
            blocked.
    """

    port: int = ORCHESTRATOR_PORT
    max_message_mib: int = 88
    discovery: Literal["dns", "kubernetes"] = "dns"
    text_encoder: str = STAGES["text_encoder"].address
    tokenizer: str = STAGES["tokenizer"].address
    base: str = STAGES["base"].address
    superres: str = STAGES["superres"].address
    stage_tls_ca: Path | None = None
    stage_tls_cert: Path | None = None
    stage_tls_key: Path | None = None
    scorer: str = ""
    hedged_percent: float = 2.0
    c2pa_cert: Path | None = None
    c2pa_key: Path | None = None
    safety_policy: PolicyName = "off"
    safety_threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_key_pair("stage_tls", self.stage_tls_cert, self.stage_tls_key)
        if self.stage_tls_cert is not None and self.stage_tls_ca is None:
            raise ValueError(
                "stage_tls_ca: expected the authorities of the stages beside stage_tls_cert, got "
                "none"
            )
        check_key_pair("c2pa", self.c2pa_cert, self.c2pa_key)
        if not 0 < self.safety_threshold <= 1:
            raise ValueError(
                f"safety_threshold: expected more than 0 and at most 1, got {self.safety_threshold}"
            )
        if not 0 <= self.hedged_percent <= MAX_HEDGED_PERCENT:
            raise ValueError(
                f"hedged_percent: expected 0 to {MAX_HEDGED_PERCENT}, got {self.hedged_percent}"
            )

    @property
    def stage_addresses(self) -> dict[StageName, str]:
        """Address of each stage of the system, in pipeline order."""
        addresses: dict[StageName, str] = {name: getattr(self, name) for name in STAGES}
        if self.superres == NO_STAGE:
            del addresses["superres"]
        return addresses

    @property
    def stage_certificate_files(self) -> CertificateFiles | None:
        """Files of the certificates for calls of stages; None for calls in plain text."""
        if self.stage_tls_ca is None:
            return None
        return CertificateFiles(
            setting="stage_tls",
            cert=self.stage_tls_cert,
            key=self.stage_tls_key,
            ca=self.stage_tls_ca,
        )


async def build(settings: Settings) -> Service:
    """Opens the channels and creates the servicer.

    The server reports SERVING once all stages are serving and compatible, and keeps doing so: if a
    stage goes away later, each request fails as UNAVAILABLE with the stage's name, which tells a
    caller more than an unavailable orchestrator. Incompatible stages at the start end the server.
    """
    import grpc

    from services.orchestrator.callers.opening import open_gate
    from services.orchestrator.calls import Deadline
    from services.orchestrator.compatibility import StageCompatibility
    from services.orchestrator.safety import load_safety
    from services.orchestrator.scoring import load_scorer
    from services.orchestrator.servicer import OrchestratorServicer
    from services.orchestrator.signing import load_signer
    from services.orchestrator.stage_clients import StageClients

    try:
        scorer = await asyncio.to_thread(load_scorer, settings.scorer)
        signer = await asyncio.to_thread(load_signer, settings.c2pa_cert, settings.c2pa_key)
        policy, threshold = settings.safety_policy, settings.safety_threshold
        safety = await asyncio.to_thread(load_safety, policy, threshold)
        gate = await asyncio.to_thread(open_gate, settings)
    except ValueError as error:
        raise ServerError(str(error)) from error
    try:
        stages = StageClients(
            settings.stage_addresses,
            max_message_mib=settings.max_message_mib,
            discovery=settings.discovery,
            hedged_share=settings.hedged_percent / 100,
            certificate_files=settings.stage_certificate_files,
        )
    except ModuleNotFoundError as error:
        raise ServerError(
            f"discovery: kubernetes needs {error.name}: pip install 'muse[discovery]'"
        ) from error
    except ValueError as error:
        raise ServerError(str(error)) from error
    compatibility = StageCompatibility(stages)

    async def warm_up() -> None:
        gate.watch()
        while True:
            try:
                await compatibility.get(Deadline(None))
                break
            except RequestError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise ServerError(error.message) from error
                await asyncio.sleep(PAUSE_S)
        compatibility.watch()

    servicer = OrchestratorServicer(stages, compatibility, scorer, signer, safety)

    async def close() -> None:
        servicer.close()
        await gate.close()
        await compatibility.close()
        await stages.close()

    return Service(
        name=ORCHESTRATOR,
        servicer=servicer,
        warm_up=warm_up,
        close=close,
        admit=gate.admitting,
    )


app = command_line(
    ORCHESTRATOR,
    "Serves the public API: prompts become pictures.",
    Settings,
    build,
    default=Settings(),
)


if __name__ == "__main__":
    run_command_line(app)
