"""Answers about jobs."""

from datetime import UTC, datetime

from pydantic import BaseModel, Field

from services.gateway.jobs.database.tables import JobRow, State
from services.gateway.native.models import Answer, ImageDetails, Images, Step
from services.gateway.openapi import ErrorDetail

PREFIX = "/v1/jobs"


class JobProgress(Step):
    """The last step of a job that runs."""

    finished: int = Field(description="Pictures finished.")


class JobImage(ImageDetails):
    """A picture of a job."""

    url: str = Field(description="Path of its file.")


class JobResult(Answer):
    """What a job made: the answer of its operation, with links in place of files."""

    images: list[JobImage] = Field(description="The pictures, best first with best_of.")


class Job(BaseModel):
    """A job; what does not apply to its state is absent."""

    id: str = Field(description="By which it is asked for.")
    operation: str = Field(description="Such as generate.")
    state: State = Field(description="queued, running, succeeded, failed or cancelled.")
    seed: int = Field(description="Seed of its first picture.")
    created_at: datetime = Field(description="When it came.")
    started_at: datetime | None = Field(None, description="When it last began.")
    finished_at: datetime | None = Field(None, description="When it ended.")
    place: int | None = Field(None, description="Place in the queue; 1 is next.")
    progress: JobProgress | None = Field(None, description="The step that it is at.")
    result: JobResult | None = Field(None, description="What it made.")
    error: ErrorDetail | None = Field(None, description="Why it failed.")


class JobEvent(BaseModel):
    """What a webhook posts at the end of a job."""

    type: str = Field(description="job.succeeded, job.failed or job.cancelled.")
    timestamp: datetime = Field(description="When the job ended.")
    data: Job = Field(description="The job, as GET answers it.")


def described(row: JobRow, place: int | None = None) -> Job:
    """Returns what is said of a job."""
    running = row.state == "running"
    return Job.model_validate(
        {
            "id": row.id,
            "operation": row.operation,
            "state": row.state,
            "seed": row.request["seed"],
            "created_at": _time(row.created_s),
            "started_at": _time(row.started_s),
            "finished_at": _time(row.finished_s),
            "place": place,
            "progress": row.progress if running else None,
            "result": row.result,
            "error": row.error,
        }
    )


def event_of(row: JobRow) -> str:
    """Returns the body of the webhook of a job that ended."""
    job = described(row)
    assert job.finished_at is not None
    event = JobEvent(type=f"job.{job.state}", timestamp=job.finished_at, data=job)
    return event.model_dump_json(exclude_none=True)


def result_of(images: Images, job_id: str) -> JobResult:
    """Returns the answer of an operation with links to its pictures."""
    linked = [
        JobImage(**each.model_dump(exclude={"image"}), url=f"{PREFIX}/{job_id}/pictures/{number}")
        for number, each in enumerate(images.images)
    ]
    return JobResult(**images.model_dump(exclude={"images"}), images=linked)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
