"""A request through the stages: text, base, superres, decode; each image moves on by itself."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence

from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.stage_pb2 import StageStatus
from muse.orchestrator.v1.orchestrator_pb2 import (
    Accepted,
    Done,
    GenerateRequest,
    GenerateResponse,
    Provenance,
)
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest

from services.orchestrator.accounts import tell_picture
from services.orchestrator.agreement import Agreed
from services.orchestrator.calls import Deadline, Retries, task_group
from services.orchestrator.edits import Source, painter_of
from services.orchestrator.painting import Painted, Painter, Painting, Texts, Work
from services.orchestrator.scoring import Scorer
from services.orchestrator.stage_clients import StageClients
from services.orchestrator.timeline import Timeline, timed
from services.runtime.observability import span_attributes
from services.runtime.observability.tracing import caller_baggage, span
from services.runtime.wire.errors import FieldViolation, RequestError
from services.sampling import SEEDS


def provenance_of(request: GenerateRequest, found: Mapping[str, StageStatus]) -> Provenance:
    """Returns what made the pictures."""
    provenance = Provenance(
        preset=found["base"].preset, base=request.base, superres=request.superres
    )
    for status in found.values():
        provenance.checkpoints.update(status.checkpoints)
    return provenance


async def generate(
    stages: StageClients,
    request: GenerateRequest,
    agreed: Agreed,
    deadline: Deadline,
    *,
    arrived_s: float,
    source: Source | None = None,
    scorer: Scorer | None = None,
) -> AsyncGenerator[GenerateResponse, None]:
    """Carries out a complete request; whatever is under way is cancelled when the reader stops.

    Each image moves on by itself and is handed out as soon as it is done. When one fails the
    request fails with its error: the others are cancelled, those handed out before stay valid,
    and there is no `done`. A caller gets the missing ones by their own seeds.

    Args:
        stages: Whom to call.
        request: Checked, with every knob set.
        agreed: What the stages say of themselves.
        deadline: Of the request; passed on to each call.
        arrived_s: time.monotonic() when it came.
        source: The picture to edit, if the request is an edit.
        scorer: Chooses the best, if the request asks for them.

    Raises:
        RequestError: a stage refused, or stayed unavailable.
    """
    yield GenerateResponse(accepted=Accepted(seed=request.seed, count=request.count))
    with caller_baggage(request.caller.id):
        texts = await _texts(stages, request, deadline)
    work = Work(
        stages=stages,
        request=request,
        texts=texts,
        provenance=provenance_of(request, agreed.statuses),
        resolutions=agreed.resolutions,
        deadline=deadline,
        events=asyncio.Queue(),
        candidates=[] if request.best_of else None,
    )
    if texts.call is not None:
        work.calls.add(texts.call)
    with caller_baggage(request.caller.id):
        working = asyncio.create_task(_all_images(work, arrived_s, source, scorer))
    try:
        while (event := await work.events.get()) is not None:
            yield _handed_out(event) if isinstance(event, Painted) else event
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    device_s: dict[str, float] = {}
    for timing in (call.timing for call in work.calls):
        device_s[timing.stage] = device_s.get(timing.stage, 0.0) + timing.device_s
    total_s = time.monotonic() - arrived_s
    yield GenerateResponse(
        done=Done(total_s=total_s, provenance=work.provenance, device_s=device_s)
    )


def _handed_out(painted: Painted) -> GenerateResponse:
    """Returns what tells the caller of a picture, now; the log is told the same."""
    painted.timeline.tell(painted.image)
    tell_picture(painted.image)
    return GenerateResponse(image=painted.image)


async def _texts(stages: StageClients, request: GenerateRequest, deadline: Deadline) -> Texts:
    """Has the prompts encoded, those that are not empty, in one call."""
    begun = time.monotonic()
    fields = [name for name in ("prompt", "negative_prompt") if getattr(request, name)]
    if not fields:
        return Texts(prompt=None, negative_prompt=None, call=None)
    texts = EncodeRequest(texts=[getattr(request, name) for name in fields])
    retries = Retries("text_encoder", deadline)
    try:
        while True:
            async with retries as left_s:
                encoded = await stages.text_encoder.Encode(texts, timeout=left_s)
                found = dict(zip(fields, encoded.embeddings, strict=True))
                return Texts(
                    prompt=found.get("prompt"),
                    negative_prompt=found.get("negative_prompt"),
                    call=timed(encoded.timing, begun),
                )
    except RequestError as error:
        raise _in_the_callers_words(error, fields) from error


def _in_the_callers_words(error: RequestError, fields: Sequence[str]) -> RequestError:
    """Returns the text encoder's refusal with the fields of the request that the caller made."""
    named = {f"texts[{index}]": name for index, name in enumerate(fields)}
    violations = [
        FieldViolation(named.get(each.field, each.field), each.description)
        for each in error.violations
    ]
    if not violations:
        return error
    first = violations[0]
    message = f"{first.field}: {first.description}"
    return RequestError(error.code, message, violations=violations)


async def _all_images(
    work: Work, arrived_s: float, source: Source | None, scorer: Scorer | None
) -> None:
    """Makes all images at once.

    Raises:
        RequestError: one failed; the others were cancelled.
    """
    try:
        paint = new_picture if source is None else await painter_of(work, source)
        paintings = []
        for index in range(work.request.best_of or work.request.count):
            seed = (work.request.seed + index) % SEEDS
            timeline = Timeline(arrived_s)
            painting = Painting(work=work, index=index, seed=seed, timeline=timeline)
            if work.texts.call is not None:
                painting.spent(work.texts.call)
            painting.tell("text_encoder", 1, 1)
            paintings.append(painting)
        async with task_group() as group:
            for painting in paintings:
                group.create_task(_painted(paint, painting))
        if work.candidates is not None and scorer is not None:
            await tell_best(work, work.candidates, scorer)
    finally:
        work.events.put_nowait(None)


async def _painted(paint: Painter, painting: Painting) -> None:
    with span("picture") as opened:
        opened.set_attributes(span_attributes.picture(painting.index, painting.seed))
        await paint(painting)


async def tell_best(work: Work, candidates: Sequence[Painted], scorer: Scorer) -> None:
    """Tells the caller of the best candidates, best first; of equal ones the first."""
    request, pictures = work.request, [each.pixels for each in candidates]
    with span("score"):
        scores = await asyncio.to_thread(scorer.scores, request.prompt, pictures)
    ranked = sorted(
        zip(candidates, scores, strict=True), key=lambda pair: (-pair[1], pair[0].image.index)
    )
    for rank, (candidate, score) in enumerate(ranked[: request.count]):
        candidate.image.rank, candidate.image.score = rank, score
        work.events.put_nowait(candidate)


async def new_picture(painting: Painting) -> None:
    """Takes one image through base, superres and tokenizer."""
    low = await painting.decode(BaseRequest())
    high = await painting.decode(SuperresRequest(low_tokens=low))
    await painting.deliver(await painting.pixels(high))
