"""Routes of jobs."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.gateway.errors import FAILED, ApiError
from services.gateway.jobs.callers import JobCaller, JobCallers
from services.gateway.jobs.models import PREFIX, Job, JobEvent, described
from services.gateway.jobs.requests import FORM, JSON, OPERATIONS, GenerateJob, read_job
from services.gateway.jobs.service import JobService
from services.gateway.openapi import ERRORS, form_schema, schema_of

MAX_KEY = 255
JobId = Annotated[str, Path(description="Id of the job.")]
Number = Annotated[int, Path(ge=0, description="Number of the picture, from 0.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=f"^[ -~]{{1,{MAX_KEY}}}$",
        description="Makes one job of a request, however often it is sent.",
    ),
]
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture's file.",
        "content": {
            f"image/{each}": {"schema": {"type": "string", "format": "binary"}}
            for each in ("png", "jpeg", "webp")
        },
    }
}


def job_routes(callers: JobCallers, jobs: JobService | None) -> APIRouter:
    """Returns the routes.

    Args:
        callers: Names the callers of requests.
        jobs: Jobs of this gateway; None if it has none.
    """
    routes = APIRouter(prefix=PREFIX, tags=["Jobs"], responses=ERRORS)

    async def opened(request: Request) -> tuple[JobService, JobCaller]:
        if jobs is None:
            raise ApiError(
                501,
                "this gateway has no jobs: start it with --jobs-database, such as "
                "sqlite:////folder/jobs.db",
                FAILED,
                "not_served",
            )
        return jobs, await callers.identify(request)

    async def answered(service: JobService, caller: JobCaller, job_id: str) -> Job:
        return described(*await service.find(caller, job_id))

    @routes.post(
        "",
        status_code=202,
        response_model=Job,
        openapi_extra={"requestBody": _bodies()},
    )
    async def add(
        request: Request,
        idempotency_key: Key = None,
    ) -> Response:
        """Adds a job, which waits and then runs."""
        service, caller = await opened(request)
        row = await service.add(caller, await read_job(request), idempotency_key)
        job = await answered(service, caller, row.id)
        content = job.model_dump(mode="json", exclude_none=True)
        return JSONResponse(content, 202, {"Location": f"{PREFIX}/{row.id}"})

    @routes.get("/{job_id}", response_model_exclude_none=True)
    async def find(request: Request, job_id: JobId) -> Job:
        """Describes a job."""
        return await answered(*await opened(request), job_id)

    @routes.delete("/{job_id}", response_model_exclude_none=True)
    async def cancel(request: Request, job_id: JobId) -> Job:
        """Cancels a job that has not ended, and describes it."""
        service, caller = await opened(request)
        return described(await service.cancel(caller, job_id))

    @routes.get("/{job_id}/pictures/{number}", response_class=Response, responses=PICTURE)
    async def picture(request: Request, job_id: JobId, number: Number) -> Response:
        """Answers a picture of a job that succeeded."""
        service, caller = await opened(request)
        content, output_format = await service.picture(caller, job_id, number)
        headers = {"Cache-Control": "private, immutable"}
        return Response(content, media_type=f"image/{output_format}", headers=headers)

    return routes


def document_webhook(webhooks: APIRouter) -> None:
    """Adds what webhooks post to what the OpenAPI document says."""

    @webhooks.post("job", tags=["Jobs"], responses=ERRORS)
    async def ended(event: JobEvent) -> None:
        """Is sent to the webhook of a job that ended, until it answers 2xx."""


def _bodies() -> dict[str, Any]:
    """Returns the documentation of the request of a job, which is JSON or a form."""
    forms = [form_schema(each.job, each.files) for each in OPERATIONS.values()]
    content = {JSON: {"schema": schema_of(GenerateJob)}, FORM: {"schema": {"anyOf": forms}}}
    return {"required": True, "content": content}
