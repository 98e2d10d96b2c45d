"""Server process of a masked stage: loads its checkpoint and wires its parts."""

from services.decoding.serving import default_serving_config
from services.masked.adapters import adapter_folders
from services.masked.engine import MaskedEngine
from services.masked.servicer import MaskedServicer
from services.masked.settings import MaskedSettings
from services.masked.spec import Config, MaskedSpec
from services.mesh import parse_mesh
from services.runtime.checkpoints.signatures import check_signature
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.server.device_service import device_service
from services.runtime.server.process import Service


async def masked_service(spec: MaskedSpec[Config], settings: MaskedSettings) -> Service:
    """Loads a checkpoint and wires engine, device thread, batcher and servicer.

    Raises:
        CheckpointError: there is no checkpoint, or it is of another stage or shape; or an adapter
            is missing, damaged, or of another checkpoint; or either is not signed as asked for.
        ValueError: the mesh or the name of an adapter is malformed, or the devices of the mesh are
            missing, cannot share the transformer evenly, or have too little memory.
    """

    def load() -> MaskedEngine[Config]:
        serving = default_serving_config(
            settings.max_batch_size,
            shards=parse_mesh(settings.mesh),
            weights=settings.weights,
            precision=settings.precision,
            rows_at_once=settings.rows,
        )
        folder = settings.checkpoints / spec.name
        adapters = adapter_folders(folder, settings.adapter)
        check_signature(folder, settings.checkpoint_key)
        for adapter in adapters.values():
            if not adapter.is_relative_to(folder):  # else signed with the rest of the checkpoint
                check_signature(adapter, settings.checkpoint_key)
        return MaskedEngine.load(spec, folder, serving, adapters)

    return await device_service(
        spec.name,
        settings,
        load=load,
        batcher_of=lambda engine, device: InflightBatcher(
            engine.pool, device, max_queued=settings.max_queued
        ),
        servicer_of=MaskedServicer,
    )
