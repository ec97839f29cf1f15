"""Talks to a Sentinel service over HTTP. Loads no torch.

    with SentinelClient("http://127.0.0.1:8000", api_key) as client:
        job = client.submit({"model": "builtin/llama", "prune": {"target": {"sparsity": 0.25}}})
        job = client.wait(job.id)
        client.download_checkpoint(job.id, Path("pruned"))

Every request may be sent twice without harm, so connection errors and 503 are tried again.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from sentinel.downloading import download
from sentinel.errors import Fault, SentinelError
from sentinel.replies import Attempt, Job, JobEvent, JobSummary
from sentinel.spec import Spec
from sentinel.transport import Busy, Retry, ServiceUnreachable, check, patiently

READ_TIMEOUT_S = 60.0  # longer than a long poll, and than the pings of an event stream are apart
LONG_POLL_S = 20
CHECKPOINT = "checkpoint/"


class NoCheckpoint(SentinelError):
    """The job has no checkpoint: it has not ended, or ended before it had kept a cycle."""

    code = "no_checkpoint"
    fault = Fault.USER
    next_step = "Wait for the job's end; if it failed, its error says why."


class FolderNotEmpty(SentinelError):
    """A download would overwrite files."""

    code = "folder_not_empty"
    fault = Fault.USER
    next_step = "Name a folder that does not exist yet."


class SentinelClient:
    """One service and one key. Close it, or use it as a context.

    Args:
        base_url: E.g. `http://127.0.0.1:8000`.
        api_key: `sntl_…`.
        patience_s: How long a request is tried again while the service does not answer.
    """

    def __init__(self, base_url: str, api_key: str, *, patience_s: float = 30.0) -> None:
        self._patience_s = patience_s
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(10.0, read=READ_TIMEOUT_S),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        spec: Spec | Mapping[str, Any],
        *,
        priority: int = 0,
        not_before: datetime | None = None,
        deadline: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job. With a key of your own, submitting the same again gives the same job.

        Args:
            spec: The experiment.
            priority: −1000 to 1000; higher runs first.
            not_before: When the job may start, with a time zone; at once without.
            deadline: When the job fails if it has not ended, with a time zone.
            idempotency_key: Stands for this request.

        Raises:
            ServiceRefused: With every mistake in the spec.
        """
        document = spec.model_dump(mode="json") if isinstance(spec, Spec) else dict(spec)
        times = {"not_before": not_before, "deadline": deadline}
        said = {name: time.isoformat() for name, time in times.items() if time is not None}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        query = {"priority": priority, **said}
        answer = self._request("POST", "/v1/jobs", json=document, params=query, headers=headers)
        return Job.model_validate(answer.json())

    def get(self, job_id: str) -> Job:
        """One job as it is now."""
        return Job.model_validate(self._request("GET", f"/v1/jobs/{job_id}").json())

    def list(self, *, state: str | None = None, name: str | None = None) -> Iterator[JobSummary]:
        """Jobs, newest first, fetched page by page."""
        query = {key: value for key, value in (("state", state), ("name", name)) if value is not None}
        while True:
            page = self._request("GET", "/v1/jobs", params=query).json()
            yield from map(JobSummary.model_validate, page["data"])
            if not page["has_more"]:
                return
            query["cursor"] = page["next_cursor"]

    def cancel(self, job_id: str, *, grace_s: float | None = None) -> Job:
        """Ask a job to stop. A running one is `cancelling` until its worker has stopped.

        Args:
            job_id: The job.
            grace_s: Seconds that it gets to finish its cycle; as the service is configured without. Asked again with
                fewer, it stops sooner.

        Raises:
            ServiceRefused: The job has succeeded or failed.
        """
        return self._ask(job_id, "cancel", grace_s=grace_s)

    def pause(self, job_id: str, *, grace_s: float | None = None) -> Job:
        """Put a job aside. A running one is `pausing` until its worker has stopped.

        Args:
            job_id: The job.
            grace_s: As in `cancel`.

        Raises:
            ServiceRefused: The job is being cancelled or has ended.
        """
        return self._ask(job_id, "pause", grace_s=grace_s)

    def resume(self, job_id: str) -> Job:
        """Queue a paused job again; it goes on behind its last finished cycle.

        Raises:
            ServiceRefused: The job is being cancelled or has ended.
        """
        return self._ask(job_id, "resume")

    def retry(self, job_id: str, *, from_start: bool = False, idempotency_key: str | None = None) -> Job:
        """Run an ended job again as a new one, behind the last cycle that it kept unless `from_start`.

        Raises:
            ServiceRefused: The job has not ended.
        """
        query = {"from": "start" if from_start else "checkpoint"}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        answer = self._request("POST", f"/v1/jobs/{job_id}/retry", params=query, headers=headers)
        return Job.model_validate(answer.json())

    def _ask(self, job_id: str, step: str, *, grace_s: float | None = None) -> Job:
        query = {} if grace_s is None else {"grace_s": grace_s}
        return Job.model_validate(self._request("POST", f"/v1/jobs/{job_id}/{step}", params=query).json())

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        """Every try of a job, in order."""
        return tuple(map(Attempt.model_validate, self._request("GET", f"/v1/jobs/{job_id}/attempts").json()["data"]))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """A job's history so far, past the seq `after`."""
        while True:
            page = self._request("GET", f"/v1/jobs/{job_id}/events", params={"after": after}).json()
            for event in map(JobEvent.model_validate, page["data"]):
                after = event.seq
                yield event
            if not page["has_more"]:
                return

    def changes(self, job_id: str) -> Iterator[Job]:
        """The job now, after every change, and at least every 20 s; the last one has ended."""
        job = self.get(job_id)
        tag = ""
        while not job.ended:
            yield job
            poll = {"params": {"wait": LONG_POLL_S}, "headers": {"If-None-Match": tag}}
            answer = self._request("GET", f"/v1/jobs/{job_id}", **poll)
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                tag = answer.headers["ETag"]
                job = Job.model_validate(answer.json())
        yield job

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """The job once it has ended.

        Raises:
            TimeoutError: It has not within `timeout_s`, give or take the 20 s of a poll.
        """
        began = time.monotonic()
        for job in self.changes(job_id):
            if job.ended:
                break
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise TimeoutError(f"The job {job_id} is still {job.state} after {timeout_s:g} s.")
        return job

    def watch(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """Events as they come, each once, until the job has ended; goes on where a broken connection stopped."""
        seen = after
        retry = Retry(self._patience_s)
        while True:
            try:
                for event in self._stream_events(job_id, seen):
                    if event is None:
                        return
                    seen = event.seq
                    retry = Retry(self._patience_s)
                    yield event
            except (httpx.TransportError, Busy) as error:
                retry.pause(error)
            else:
                retry.pause(ServiceUnreachable("The event stream ended before the job."))

    def download_checkpoint(self, job_id: str, folder: Path) -> Path:
        """Download an ended job's checkpoint into a new folder that `from_pretrained` loads.

        Of a job that ended without success it is the model as the last kept cycle left it.

        Raises:
            NoCheckpoint: The job has not ended, or ended before it had kept a cycle.
            FolderNotEmpty: `folder` holds files already.
            DownloadDamaged: What arrived is not what the job's artifacts announce; nothing is kept.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FolderNotEmpty(f"{folder} exists already.")
        job = self.get(job_id)
        if job.checkpoint_uri is None:
            raise NoCheckpoint(f"The job {job_id} is {job.state}.")
        files = {a.path.removeprefix(CHECKPOINT): a for a in job.artifacts if a.path.startswith(CHECKPOINT)}
        download(self._http, files, folder, patience_s=self._patience_s)
        return folder

    def _stream_events(self, job_id: str, after: int) -> Iterator[JobEvent | None]:
        """One connection's events; None says that the job has ended."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
            check(answer)
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                elif "data" in fields:
                    yield None if fields.get("event") == "end" else JobEvent.model_validate_json(fields["data"])
                    fields = {}

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        def send() -> httpx.Response:
            return check(self._http.request(method, path, **options))

        return patiently(send, patience_s=self._patience_s)
