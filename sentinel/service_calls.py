"""What can be asked of a service. Each call is written once, for the blocking and the async client alike.

Here are those about jobs; the others are in `sweep_calls`, `upload_calls`, `key_calls` and `webhook_calls`. They know
paths, parameters and replies. How a request meets trouble is `transport`'s business.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from sentinel.downloading import Progress, download
from sentinel.endpoint import path_of
from sentinel.errors import Fault, SentinelError
from sentinel.key_calls import KeyCalls
from sentinel.polling import changes, last
from sentinel.replies import (
    Attempt,
    Job,
    JobEvent,
    JobSummary,
    MetricPoint,
    Metrics,
    Page,
    Strategy,
    Verdict,
    Worker,
)
from sentinel.spec import Spec, plain_document
from sentinel.sweep_calls import SweepCalls
from sentinel.transport import TROUBLE, Retry, ServiceUnreachable, check
from sentinel.upload_calls import UploadCalls
from sentinel.webhook_calls import WebhookCalls

CHECKPOINT = "checkpoint/"


class NoCheckpoint(SentinelError):
    """The job has no checkpoint: it has not ended, or ended before it had kept a cycle."""

    code = "no_checkpoint"
    fault = Fault.USER
    next_step = "Wait for the job's end; if it failed, its error says why."


class ServiceCalls(SweepCalls, UploadCalls, KeyCalls, WebhookCalls):
    """The calls, over a session. People meet them as methods of a client."""

    async def submit(
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
            SpecInvalid: The spec has a value that no JSON text has.
            ServiceRefused: With every mistake in the spec.
        """
        terms = {"priority": priority, "not_before": not_before, "deadline": deadline}
        return await self._session.make(Job, "/v1/jobs", key=idempotency_key, json=_document(spec), **terms)

    async def validate(self, spec: Spec | Mapping[str, Any]) -> Verdict:
        """Check a spec without running it: all its mistakes; or what it will take, and what would keep it waiting."""
        return await self._session.ask(Verdict, "/v1/jobs/validate", json=_document(spec))

    async def get(self, job_id: str) -> Job:
        """One job as it is now."""
        return await self._session.read(Job, path_of("jobs", job_id))

    def list(
        self, *, state: str | None = None, name: str | None = None, page_size: int | None = None
    ) -> AsyncGenerator[JobSummary, None]:
        """Jobs, newest first, fetched page by page."""
        return self._session.pages(Page[JobSummary], "/v1/jobs", state=state, name=name, limit=page_size)

    async def cancel(self, job_id: str, *, grace_s: float | None = None) -> Job:
        """Ask a job to stop. A running one is `cancelling` until its worker has stopped.

        Args:
            job_id: The job.
            grace_s: Seconds that it gets to finish its cycle; as the service is configured without. Asked again with
                fewer, it stops sooner.

        Raises:
            ServiceRefused: The job has succeeded or failed.
        """
        return await self._session.ask(Job, path_of("jobs", job_id, "cancel"), grace_s=grace_s)

    async def pause(self, job_id: str, *, grace_s: float | None = None) -> Job:
        """Put a job aside. A running one is `pausing` until its worker has stopped.

        Args:
            job_id: The job.
            grace_s: As in `cancel`.

        Raises:
            ServiceRefused: The job is being cancelled or has ended.
        """
        return await self._session.ask(Job, path_of("jobs", job_id, "pause"), grace_s=grace_s)

    async def resume(self, job_id: str) -> Job:
        """Queue a paused job again; it goes on behind its last finished cycle.

        Raises:
            ServiceRefused: The job is being cancelled or has ended.
        """
        return await self._session.ask(Job, path_of("jobs", job_id, "resume"))

    async def retry(self, job_id: str, *, from_start: bool = False, idempotency_key: str | None = None) -> Job:
        """Run an ended job again as a new one, behind the last cycle that it kept unless `from_start`.

        Raises:
            ServiceRefused: The job has not ended.
        """
        query = {"from": "start" if from_start else "checkpoint"}
        return await self._session.make(Job, path_of("jobs", job_id, "retry"), key=idempotency_key, **query)

    async def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        """Every try of a job, in order."""
        return (await self._session.read(Page[Attempt], path_of("jobs", job_id, "attempts"))).data

    async def metrics(self, job_id: str, *, name: str | None = None) -> dict[str, tuple[MetricPoint, ...]]:
        """Every number that a job has recorded, or those of one name."""
        return (await self._session.read(Metrics, path_of("jobs", job_id, "metrics"), name=name)).root

    async def logs(self, job_id: str, *, tail: int | None = None) -> str:
        """The log lines of a job's latest attempt; of all of them the last `tail`."""
        query = {} if tail is None else {"tail": tail}
        return (await self._session.request("GET", path_of("jobs", job_id, "logs"), params=query)).text

    async def workers(self) -> tuple[Worker, ...]:
        """Every living worker."""
        return (await self._session.read(Page[Worker], "/v1/workers")).data

    async def strategies(self) -> tuple[Strategy, ...]:
        """What can compute importance."""
        return (await self._session.read(Page[Strategy], "/v1/strategies")).data

    async def events(self, job_id: str, *, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """A job's history so far, past the seq `after`."""
        while True:
            page = await self._session.read(Page[JobEvent], path_of("jobs", job_id, "events"), after=after)
            for event in page.data:
                after = event.seq
                yield event
            if not page.has_more:
                return

    def changes(self, job_id: str) -> AsyncGenerator[Job, None]:
        """The job now, after every change, and at least every 20 s; the last one has ended."""
        return changes(self._session, Job, path_of("jobs", job_id))

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """The job once it has ended.

        Raises:
            TimeoutError: It has not within `timeout_s`, give or take the 20 s of a poll.
        """
        return await last(self.changes(job_id), timeout_s=timeout_s)

    async def watch(self, job_id: str, *, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """Events as they come, each once, until the job has ended; goes on where a broken connection stopped."""
        seen = after
        retry = Retry(self._session)
        while True:
            try:
                async with aclosing(self._stream_events(job_id, seen, retry)) as events:
                    async for event in events:
                        if event is None:
                            return
                        seen = event.seq
                        yield event
            except TROUBLE as error:
                await retry.pause(error)
            else:
                await retry.pause(ServiceUnreachable("The event stream ended before the job."))

    async def download_checkpoint(self, job_id: str, folder: Path, *, progress: Progress | None = None) -> Path:
        """Download an ended job's checkpoint into a new folder that `from_pretrained` loads.

        Of a job that ended without success it is the model as the last kept cycle left it. A download that was cut off
        goes on where it stopped when it is asked for again.

        Args:
            job_id: The job.
            folder: Appears complete and verified, or not at all.
            progress: Told how many bytes of how many are there.

        Raises:
            NoCheckpoint: The job has not ended, or ended before it had kept a cycle.
            FolderNotEmpty: `folder` holds files already.
            DownloadUnderWay: Somebody else is downloading into it.
            DownloadDamaged: What arrived is not what the job's artifacts announce.
        """
        job = await self.get(job_id)
        if job.checkpoint_uri is None:
            raise NoCheckpoint(f"The job {job_id} is {job.state}.")
        files = {a.path.removeprefix(CHECKPOINT): a for a in job.artifacts if a.path.startswith(CHECKPOINT)}
        await download(self._session, files, folder, progress=progress)
        return folder

    async def _stream_events(self, job_id: str, after: int, retry: Retry) -> AsyncGenerator[JobEvent | None, None]:
        """One connection's events; None says that the job has ended."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        async with self._session.http.stream("GET", path_of("jobs", job_id, "events"), headers=headers) as answer:
            await check(answer)
            fields: dict[str, str] = {}
            async for line in _lines(answer):
                retry.begin_anew()  # a ping is a sign of life too
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                elif "data" in fields:
                    yield None if fields.get("event") == "end" else JobEvent.model_validate_json(fields["data"])
                    fields = {}


def _document(spec: Spec | Mapping[str, Any]) -> dict[str, Any]:
    return spec.model_dump(mode="json") if isinstance(spec, Spec) else plain_document(spec)


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """Whole lines of an event stream; httpx's own would also part them where a text has a Unicode line separator."""
    rest = b""
    async for chunk in answer.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()
