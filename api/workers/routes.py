"""The HTTP side of workers."""

from fastapi import APIRouter

from api.resources import ReadSession, Shared
from api.workers import service
from api.workers.schemas import WorkerList

router = APIRouter(prefix="/workers", tags=["workers"])


@router.get("", summary="Who runs jobs, and on what")
def living(session: ReadSession, resources: Shared) -> WorkerList:
    """Every worker that has been heard of within the time of a lease, with its devices and their memory."""
    return service.living(session, settings=resources.settings)
