"""The application: a list of routers, middleware and handlers, and no logic.

`uvicorn --factory api.main:app` serves it with the settings of the environment.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from http import HTTPStatus
from importlib.metadata import version

import anyio
from fastapi import APIRouter, FastAPI

from api import collector, errors, health, interpreter, messenger, openapi, reconciler
from api.artifacts.routes import router as artifacts
from api.audit.routes import router as audit
from api.auth import authorised
from api.docs.routes import router as docs
from api.gate import Gate
from api.hub.routes import router as hub
from api.jobs.routes import router as jobs
from api.keys.routes import router as keys
from api.middleware import BodyLimit, RequestContext
from api.resources import Resources, open_resources
from api.rounds import repeating
from api.settings import Settings
from api.stopping import noticing_stop
from api.strategies.routes import router as strategies
from api.sweeps.routes import router as sweeps
from api.uploads.routes import FILE_BODIES
from api.uploads.routes import router as uploads
from api.usage.routes import router as usage
from api.webhooks.routes import messages
from api.webhooks.routes import router as webhooks
from api.workers.routes import router as workers
from sentinel.utils import logs

EVERYWHERE = errors.responses(
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


def create_app(settings: Settings) -> FastAPI:
    """Build the application; its reconciler, collector and messenger run while it is served."""
    app = FastAPI(
        title="Sentinel",
        version=version("sentinel-pruning"),
        description="Prunes transformer language models and heals them.",
        lifespan=_serving,
        docs_url=None,  # FastAPI's own page would load scripts from a CDN
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.resources = open_resources(settings)
    errors.install(app)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        files=FILE_BODIES,
        max_file_bytes=settings.max_upload_file_bytes,
    )
    app.add_middleware(Gate, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(RequestContext)
    app.include_router(health.router)
    app.include_router(docs)
    app.include_router(_v1())
    app.include_router(hub, dependencies=[authorised], responses=EVERYWHERE)
    app.webhooks.include_router(messages)
    app.openapi = cache(partial(openapi.build, app))  # type: ignore[method-assign]  # the documented way
    return app


@cache
def _v1() -> APIRouter:
    """Everything that needs a key; made once, for FastAPI works each route out anew for every router that has it."""
    router = APIRouter(prefix="/v1", dependencies=[authorised], responses=EVERYWHERE)
    for part in (jobs, sweeps, artifacts, uploads, strategies, workers, webhooks, keys, usage, audit):
        router.include_router(part)
    return router


@asynccontextmanager
async def _serving(app: FastAPI) -> AsyncIterator[None]:
    resources: Resources = app.state.resources
    settings = resources.settings
    with (
        repeating("reconciler", partial(reconciler.run_round, resources), every_s=settings.reconcile_s),
        repeating("collector", partial(collector.run_round, resources), every_s=settings.collect_s),
        messenger.sending(resources),
        noticing_stop(resources.stopping),
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(resources.news.run)
            yield
            tasks.cancel_scope.cancel()
    resources.rates.close()
    resources.database.close()


def app() -> FastAPI:
    """The factory for servers: settings from the environment, log lines on stderr, those of uvicorn among them."""
    settings = Settings()
    logs.configure(settings.log_format)
    logs.adopt("uvicorn")
    logging.getLogger("uvicorn.access").handlers.clear()  # `RequestContext` logs requests
    served = create_app(settings)
    interpreter.serve_many()
    return served
