"""What can be asked of a service about sweeps."""

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Any

from sentinel.endpoint import path_of
from sentinel.polling import changes, last
from sentinel.replies import Cost, Minimised, Page, Sweep, SweepRow, SweepVerdict
from sentinel.spec import plain_document
from sentinel.sweep_spec import SweepSpec
from sentinel.transport import Calls


class SweepCalls(Calls):
    """Many jobs as one."""

    async def submit_sweep(
        self,
        sweep: SweepSpec | Mapping[str, Any],
        *,
        priority: int = 0,
        not_before: datetime | None = None,
        deadline: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Sweep:
        """Submit a job for every combination of a grid's values, or none.

        Args:
            sweep: The spec and the grid.
            priority: Of every job, −1000 to 1000; higher runs first.
            not_before: When its jobs may start, with a time zone; at once without.
            deadline: When those of its jobs fail that have not ended, with a time zone.
            idempotency_key: Stands for this request; the same again gives the same sweep.

        Raises:
            SpecInvalid: The sweep has a value that no JSON text has.
            ServiceRefused: With every mistake of every point.
        """
        terms = {"priority": priority, "not_before": not_before, "deadline": deadline}
        return await self._session.make(Sweep, "/v1/sweeps", key=idempotency_key, json=_document(sweep), **terms)

    async def validate_sweep(self, sweep: SweepSpec | Mapping[str, Any]) -> SweepVerdict:
        """Check a sweep without running it: the mistakes of all its points, or the points."""
        return await self._session.ask(SweepVerdict, "/v1/sweeps/validate", json=_document(sweep))

    async def get_sweep(self, sweep_id: str) -> Sweep:
        """One sweep as it is now."""
        return await self._session.read(Sweep, path_of("sweeps", sweep_id))

    def list_sweeps(self, *, page_size: int | None = None) -> AsyncGenerator[Sweep, None]:
        """Sweeps, newest first, fetched page by page."""
        return self._session.pages(Page[Sweep], "/v1/sweeps", limit=page_size)

    async def cancel_sweep(self, sweep_id: str, *, grace_s: float | None = None) -> Sweep:
        """Cancel every job of a sweep that has not ended; `grace_s` as for a job."""
        return await self._session.ask(Sweep, path_of("sweeps", sweep_id, "cancel"), grace_s=grace_s)

    def sweep_changes(self, sweep_id: str) -> AsyncGenerator[Sweep, None]:
        """The sweep now, after a change of any of its jobs, and at least every 20 s; the last time all have ended."""
        return changes(self._session, Sweep, path_of("sweeps", sweep_id))

    async def wait_for_sweep(self, sweep_id: str, *, timeout_s: float | None = None) -> Sweep:
        """The sweep once all of its jobs have ended.

        Raises:
            TimeoutError: They have not within `timeout_s`, give or take the 20 s of a poll.
        """
        return await last(self.sweep_changes(sweep_id), timeout_s=timeout_s)

    async def sweep_table(
        self, sweep_id: str, *, pareto: Cost | None = None, average_seeds: bool = False
    ) -> tuple[SweepRow, ...]:
        """What the jobs of a sweep have measured, a row a point.

        Args:
            sweep_id: The sweep.
            pareto: Leaves the rows whose loss no other has at the same cost or less, the cheapest first.
            average_seeds: Makes one row of all points that differ in the seed alone.
        """
        query = {"pareto": pareto, "average_seeds": average_seeds}
        return (await self._session.read(Page[SweepRow], path_of("sweeps", sweep_id, "table"), **query)).data

    async def sweep_best(
        self,
        sweep_id: str,
        *,
        max_parameters: float | None = None,
        max_latency_ms: float | None = None,
        max_kv_bytes_per_token: float | None = None,
        minimise: Minimised = "loss",
        average_seeds: bool = False,
    ) -> SweepRow:
        """The row within these limits that has the least of something.

        Raises:
            ServiceRefused: None is within them; says which comes nearest. Or no job has succeeded yet.
        """
        return await self._session.read(
            SweepRow,
            path_of("sweeps", sweep_id, "best"),
            max_parameters=max_parameters,
            max_latency_ms=max_latency_ms,
            max_kv_bytes_per_token=max_kv_bytes_per_token,
            minimise=minimise,
            average_seeds=average_seeds,
        )


def _document(sweep: SweepSpec | Mapping[str, Any]) -> dict[str, Any]:
    return sweep.model_dump(mode="json") if isinstance(sweep, SweepSpec) else plain_document(sweep)
