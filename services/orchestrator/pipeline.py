"""The pipeline of a request: text encoder, base, superres, tokenizer; images run concurrently.

In a system without a superres the tokenizer decodes the base's tokens to the picture.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence

from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.stage_pb2 import StageStatus
from muse.common.v1.tensor_pb2 import TextEmbedding
from muse.common.v1.warning_pb2 import RequestWarning
from muse.orchestrator.v1.orchestrator_pb2 import (
    Accepted,
    Done,
    GenerateRequest,
    GenerateResponse,
    Provenance,
)
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest

from services.orchestrator.calls import Deadline, Retries, task_group
from services.orchestrator.compatibility import Compatible
from services.orchestrator.edits.kind import Source
from services.orchestrator.edits.registry import EDITS
from services.orchestrator.expected_time import FastestCalls
from services.orchestrator.image_task import (
    FinishedImage,
    ImageHandler,
    ImageTask,
    RequestContext,
)
from services.orchestrator.request_log import log_image
from services.orchestrator.safety import SafetyCheck, all_blocked, previews_warning
from services.orchestrator.scoring import Scorer
from services.orchestrator.signing import PictureSigner
from services.orchestrator.stage_clients import StageClients
from services.orchestrator.threads import run_in_thread
from services.orchestrator.timeline import Call, Timeline, timed
from services.runtime.observability import span_attributes
from services.runtime.observability.tracing import caller_baggage, span
from services.runtime.wire.errors import FieldViolation, RequestError, failed_precondition
from services.sampling import SEEDS


def _provenance(request: GenerateRequest, statuses: Mapping[str, StageStatus]) -> Provenance:
    """Returns the provenance of the images of a request with every sampling parameter set."""
    provenance = Provenance(
        preset=statuses["base"].preset,
        base=request.base,
        superres=request.superres if "superres" in statuses else None,
        adapters=request.adapters,
    )
    for status in statuses.values():
        provenance.checkpoints.update(status.checkpoints)
        for each in request.adapters:
            if each.name in status.adapters:
                path = f"{status.stage}/adapters/{each.name}"
                provenance.checkpoints[path] = status.adapters[each.name]
    return provenance


async def generate(
    stages: StageClients,
    request: GenerateRequest,
    compatible: Compatible,
    deadline: Deadline,
    fastest: FastestCalls,
    *,
    arrived_s: float,
    caller: str,
    calls: set[Call],
    source: Source | None = None,
    scorer: Scorer | None = None,
    signer: PictureSigner | None = None,
    safety: SafetyCheck | None = None,
) -> AsyncGenerator[GenerateResponse, None]:
    """Runs a request through the stages and yields its events.

    Images run concurrently, and each is sent as soon as it is finished. If one fails, the request
    fails with its error: the other images are cancelled, images sent before stay valid, and there
    is no `done` event. The caller can request a missing image by its own seed. Closing the
    generator cancels all calls in progress.

    Args:
        request: The checked request, every sampling parameter set.
        fastest: The fastest recent calls, to which those of this request are added.
        arrived_s: time.monotonic() when the request arrived.
        caller: Name of the caller in spans.
        calls: Filled with every answered call of a stage.
        source: Decoded source of an edit; None for a request that generates.
        scorer: Ranks the candidates of `best_of`.
        signer: Signs the files of images; None for none.
        safety: Checks the images; None on a server without a classifier.

    Raises:
        RequestError: a stage refused, or stayed unavailable; PERMISSION_DENIED: the safety policy
            blocked every image.
    """
    yield GenerateResponse(accepted=Accepted(seed=request.seed, count=request.count))
    with caller_baggage(caller):
        embeddings, warnings, encoding = await _encode_prompts(stages, request, deadline, fastest)
    calls.update(encoding)
    context = RequestContext(
        stages=stages,
        request=request,
        embeddings=embeddings,
        adapters={
            stage: [each for each in request.adapters if each.name in status.adapters]
            for stage, status in compatible.statuses.items()
        },
        provenance=_provenance(request, compatible.statuses),
        codebooks=compatible.codebooks,
        resolutions=compatible.resolutions,
        deadline=deadline,
        events=asyncio.Queue(),
        candidates=[] if request.best_of else None,
        calls=calls,
        fastest=fastest,
        signer=signer,
        safety=safety,
    )
    if safety is not None and safety.hides_pictures and request.preview_every:
        request.preview_every = 0
        warnings = [*warnings, previews_warning()]
    for warning in warnings:
        yield GenerateResponse(warning=warning)
    timeline = Timeline(arrived_s, encoding)
    with caller_baggage(caller):
        running = asyncio.create_task(_run_images(context, timeline, source, scorer))
    sent = 0
    try:
        while (event := await context.events.get()) is not None:
            sent += isinstance(event, FinishedImage)
            yield _send(event) if isinstance(event, FinishedImage) else event
        await running
        if not sent:
            raise all_blocked()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    device_s: dict[str, float] = defaultdict(float)
    for call in context.calls:
        device_s[call.timing.stage] += call.timing.device_s
    total_s = time.monotonic() - arrived_s
    yield GenerateResponse(
        done=Done(total_s=total_s, provenance=context.provenance, device_s=device_s)
    )


def _send(finished: FinishedImage) -> GenerateResponse:
    """Returns the event of an image that is sent now, and logs its timings."""
    finished.timeline.write_to(finished.image)
    log_image(finished.image)
    return GenerateResponse(image=finished.image)


async def _encode_prompts(
    stages: StageClients, request: GenerateRequest, deadline: Deadline, fastest: FastestCalls
) -> tuple[dict[str, TextEmbedding], Sequence[RequestWarning], list[Call]]:
    """Encodes the prompts that are not empty in one call.

    Returns:
        The embeddings by field, the text encoder's warnings, and the call.
    """
    begun = time.monotonic()
    fields = [name for name in ("prompt", "negative_prompt") if getattr(request, name)]
    if not fields:
        return {}, [], []
    message = EncodeRequest(texts=[getattr(request, name) for name in fields])
    retries = Retries("text_encoder", deadline)
    try:
        while True:
            async with retries as left_s:
                encoded = await stages.text_encoder.Encode(message, timeout=left_s)
                fastest.measure(encoded.timing)
                embeddings = dict(zip(fields, encoded.embeddings, strict=True))
                return embeddings, encoded.warnings, [timed(encoded.timing, begun)]
    except RequestError as error:
        raise _with_request_fields(error, fields) from error


def _with_request_fields(error: RequestError, fields: Sequence[str]) -> RequestError:
    """Returns the text encoder's error with the field names of the orchestrator's request."""
    names = {f"texts[{index}]": name for index, name in enumerate(fields)}
    violations = [
        FieldViolation(names.get(each.field, each.field), each.description)
        for each in error.violations
    ]
    if not violations:
        return error
    message = f"{violations[0].field}: {violations[0].description}"
    return RequestError(error.code, message, violations=violations)


async def _run_images(
    context: RequestContext, begun: Timeline, source: Source | None, scorer: Scorer | None
) -> None:
    """Makes all images concurrently.

    Raises:
        RequestError: one image failed; the others were cancelled.
    """
    try:
        handler: ImageHandler = generate_image
        if source is not None:
            _check_resolutions(context)
            handler = await EDITS[source.edit].prepare(context, source)
        tasks = []
        for index in range(context.request.best_of or context.request.count):
            seed = (context.request.seed + index) % SEEDS
            task = ImageTask(context=context, index=index, seed=seed, timeline=begun.fork())
            task.report_step("text_encoder", 1, 1)
            tasks.append(task)
        async with task_group() as group:
            for task in tasks:
                group.create_task(_run_image(handler, task))
        if context.candidates and scorer is not None:
            await deliver_best(context, context.candidates, scorer)
    finally:
        context.events.put_nowait(None)


def _check_resolutions(context: RequestContext) -> None:
    if missing := [stage for stage, each in context.resolutions.items() if not each.side_px]:
        raise failed_precondition(
            f"the tokenizer does not report the size of its pictures for {missing}: "
            "serve a tokenizer of this version"
        )


async def _run_image(handler: ImageHandler, task: ImageTask) -> None:
    with span("picture") as opened:
        opened.set_attributes(span_attributes.picture(task.index, task.seed))
        await handler(task)


async def deliver_best(
    context: RequestContext, candidates: Sequence[FinishedImage], scorer: Scorer
) -> None:
    """Sends the best candidates in order of their scores; ties go by index."""
    request, pictures = context.request, [each.pixels for each in candidates]
    with span("score"):
        scores = await run_in_thread(scorer.scores, request.prompt, pictures)
    ranked = sorted(
        zip(candidates, scores, strict=True), key=lambda pair: (-pair[1], pair[0].image.index)
    )
    for rank, (candidate, score) in enumerate(ranked[: request.count]):
        candidate.image.rank, candidate.image.score = rank, score
        context.events.put_nowait(candidate)


async def generate_image(task: ImageTask) -> None:
    """Generates one image with base, superres if the system has one, and tokenizer."""
    tokens = await task.decode(BaseRequest())
    if task.context.has_superres:
        tokens = await task.decode(SuperresRequest(low_tokens=tokens))
    await task.deliver(await task.pixels(tokens))
