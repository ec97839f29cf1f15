"""One real object of every kind that a path can name, so that tests can walk over all routes.

A room with ids of a new kind registers here how one of its objects comes to be.
"""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from api.store.keys import create_key
from api.store.storage import Storage, log_key
from tests.integration.api.conftest import SPEC, Service


def job(service: Service) -> str:
    """A job that has ended, with files and a log."""
    job_id = service.submit()["id"]
    claim = service.claim()
    printed = service.folder / "runner.log"
    printed.write_text("words\n")
    Storage(service.settings.storage_uri).put_log(printed, log_key(claim.job_id, claim.token))
    service.finish(claim)
    return job_id


def artifact(service: Service) -> str:
    """A file of such a job."""
    return service.client.get(f"/v1/jobs/{job(service)}/artifacts").json()["data"][0]["id"]


def sweep(service: Service) -> str:
    """A sweep of one job."""
    return _made(service, "/v1/sweeps", {"spec": SPEC, "grid": {"seed": [1]}})


def upload(service: Service) -> str:
    """An upload whose only file is still to come."""
    file = {"path": "text.txt", "bytes": 5, "sha256": hashlib.sha256(b"Hello").hexdigest()}
    return _made(service, "/v1/uploads", {"kind": "text", "files": [file]})


def webhook(service: Service) -> str:
    """A webhook that leads nowhere."""
    return _made(service, "/v1/webhooks", {"url": "https://hook.invalid/", "events": ["job.succeeded"]})


def delivery(service: Service) -> str:
    """What such a webhook was to be told."""
    return _made(service, f"/v1/webhooks/{webhook(service)}/test", {})


def key(service: Service) -> str:
    """A key that nobody has."""
    with service.database.transaction() as session:
        made, _ = create_key(session, "ann", "another", ["read"])
        return made.id


def _made(service: Service, path: str, document: dict) -> str:
    answer = service.client.post(path, json=document)
    assert answer.is_success, answer.text
    return answer.json()["id"]


# Name of the path parameter → makes an object that belongs to the tenant of `service.client`, and returns its id.
FACTORIES: Mapping[str, Callable[[Service], str]] = MappingProxyType(
    {
        "job_id": job,
        "artifact_id": artifact,
        "sweep_id": sweep,
        "upload_id": upload,
        "webhook_id": webhook,
        "delivery_id": delivery,
        "key_id": key,
    }
)
