"""The application: routes, errors, credentials, and what is recorded of each request."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from muse_client import AsyncMuseClient, MuseError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from services.gateway.credentials import credential_of
from services.gateway.errors import BAD_REQUEST, FAILED, RETRY_S, ApiError, api_error
from services.gateway.jobs.callers import JobCallers
from services.gateway.jobs.routes import document_webhook, job_routes
from services.gateway.jobs.service import JobService
from services.gateway.limits import Limits
from services.gateway.native.routes import native_routes
from services.gateway.openai.routes import openai_routes
from services.gateway.page.routes import page_routes
from services.gateway.served import ServedSystem
from services.gateway.settings import GatewaySettings
from services.runtime.version import package_version

logger = logging.getLogger(__name__)


def gateway_app(
    client: AsyncMuseClient,
    settings: GatewaySettings,
    metrics: Callable[[], str] | None,
    jobs: JobService | None = None,
) -> FastAPI:
    """Returns the application.

    Args:
        client: Of the orchestrator, with the gateway's own credential; closed with the application.
        settings: Limits, and aliases of models.
        metrics: Returns what `/metrics` answers to Prometheus; None for no such route.
        jobs: Jobs of this gateway, which run as long as the application; None for none.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client, nullcontext() if jobs is None else jobs.running():
            yield

    def client_of(request: Request) -> AsyncMuseClient:
        try:
            return client.presenting(credential_of(request))
        except ValueError as error:
            problem = str(error).replace("api_key", "authorization")
            raise ApiError(401, problem, code="invalid_api_key") from None

    system, readiness = ServedSystem(client), Readiness()
    app = FastAPI(
        title="Muse",
        version=package_version(),
        lifespan=lifespan,
        redoc_url=None,
        docs_url=None,
    )
    app.include_router(openai_routes(client_of, system, aliases=settings.model_aliases))
    app.include_router(native_routes(client_of))
    app.include_router(job_routes(JobCallers(client_of), jobs))
    document_webhook(app.webhooks)
    if settings.page:
        app.include_router(page_routes(system))
    app.add_middleware(
        Limits,
        max_requests=settings.max_requests,
        max_body_bytes=settings.max_body_mib * 2**20,
        max_bodies_bytes=settings.max_bodies_mib * 2**20,
        receive_timeout_s=settings.receive_timeout_s,
    )

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        """Answers as long as the process lives."""
        return PlainTextResponse("ok")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        """Answers whether the orchestrator and all stages serve."""
        try:
            await system.current()
        except MuseError as error:
            readiness.log(error.message)
            return PlainTextResponse(error.message, 503)
        readiness.log(None)
        return PlainTextResponse("ok")

    if metrics is not None:

        @app.get("/metrics", include_in_schema=False)
        async def scraped() -> Response:
            """Answers Prometheus."""
            return PlainTextResponse(metrics())

    _add_error_handlers(app)
    return app


class Readiness:
    """Whether the gateway is ready, logged when that changes: the reason varies with every try."""

    def __init__(self) -> None:
        """Starts with nothing logged."""
        self._logged: bool | None = None

    def log(self, problem: str | None) -> None:
        """Logs why the gateway is not ready, or with None that it is, unless it was that before."""
        if (problem is None) == self._logged:
            return
        self._logged = problem is None
        if problem is None:
            logger.info("ready")
        else:
            logger.warning("not ready: %s", problem)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return _answer(error)

    @app.exception_handler(MuseError)
    async def failed(_: Request, error: MuseError) -> Response:
        return _answer(api_error(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        return _answer(_of_validation(error))

    @app.exception_handler(SQLAlchemyError)
    async def without_database(_: Request, error: SQLAlchemyError) -> Response:
        logger.warning("the database of jobs failed: %s", error)
        message = "the database of jobs cannot be used now"
        headers = {"Retry-After": f"{RETRY_S:g}"}
        return _answer(ApiError(503, message, FAILED, "unavailable", headers=headers))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        code = HTTPStatus(error.status_code).name.lower()  # such as "not_found"
        return _answer(ApiError(error.status_code, message, code=code, headers=error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # as nginx counts it; no one reads it

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Response:  # uvicorn logs it
        return _answer(ApiError(500, "the gateway failed; its log says why", FAILED, "internal"))


def _of_validation(error: RequestValidationError) -> ApiError:
    """Returns the error of a body that does not fit its model: the first that is wrong."""
    first: dict[str, Any] = error.errors()[0]
    place = [str(each) for each in first["loc"] if each not in ("body", "header", "path")]
    param = ".".join(place) or None
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first['ctx']['error']}", code="invalid_json")
    codes = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
    got = "" if first["type"] == "missing" else f", got {str(first.get('input'))[:100]!r}"
    return ApiError(
        400,
        f"{param or 'body'}: {first['msg']}{got}",
        BAD_REQUEST,
        codes.get(first["type"], "invalid_value"),
        param,
    )


def _answer(error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, dict(error.headers))
