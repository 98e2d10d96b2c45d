"""What a request asks for, in the units of quotas."""

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.edits.kind import Source
from services.orchestrator.edits.registry import edit_kind


def pictures_of(request: GenerateRequest) -> int:
    """Returns the number of pictures that a checked request has made, candidates included."""
    kind = edit_kind(request)
    return (request.best_of or request.count) * (1 if kind is None else kind.results(request))


def steps_of(request: GenerateRequest, source: Source | None) -> int:
    """Returns the steps of base and superres that a request takes at most.

    Args:
        request: The checked request, every sampling parameter set.
        source: Decoded source of an edit; None for a request that generates.
    """
    kind = edit_kind(request)
    results, windows = 1, 1
    if kind is not None and source is not None:
        results, windows = kind.results(request), kind.windows(request, source)
    each = request.base.steps + results * request.superres.steps
    return (request.best_of or request.count) * windows * each
