"""One real object of every kind that a path can name, so that tests can walk over all routes.

A room with ids of a new kind registers here how one of its objects comes to be.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.integration.api.conftest import Service


def job(service: Service) -> str:
    """A job that has ended, with files."""
    job_id = service.submit()["id"]
    service.finish(service.claim())
    return job_id


def artifact(service: Service) -> str:
    """A file of such a job."""
    return service.client.get(f"/v1/jobs/{job(service)}/artifacts").json()["data"][0]["id"]


# Name of the path parameter → makes an object that belongs to the tenant of `service.client`, and returns its id.
FACTORIES: Mapping[str, Callable[[Service], str]] = MappingProxyType({"job_id": job, "artifact_id": artifact})
