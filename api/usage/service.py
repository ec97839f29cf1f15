"""Reports what the keys of a tenant have taken. Knows no HTTP."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from api.auth import Principal
from api.keys.schemas import Quotas
from api.refusals import PeriodInvalid
from api.store import keys, usage
from api.store.database import db_now
from api.store.models import ApiKey, Job
from api.store.states import LEASED, UNHELD, State
from api.usage.schemas import KeyUse, UsageReport, Use


def report(
    session: Session, caller: Principal, *, key_id: str | None, start: datetime | None, end: datetime | None
) -> UsageReport:
    """Of every key of the tenant or of one; in the current month so far, or between other bounds.

    Raises:
        KeyNotFound: The key does not exist, or is somebody else's.
        PeriodInvalid: The bounds have no time between them.
    """
    period = _period(session, start, end)
    if key_id is None:
        of: tuple[ColumnElement[bool], ...] = (Job.tenant == caller.tenant,)
        known = keys.page_of_keys(session, caller.tenant)
    else:
        of = usage.of_key(caller.tenant, key_id)
        known = [keys.get_key(session, caller.tenant, key_id)]
    jobs = usage.jobs_by_state(session, *of)
    seconds = usage.gpu_seconds(session, *of, period=period)
    stored = usage.stored_bytes(session, *of)

    def use_of(key_id: str | None) -> Use:
        return _use(jobs.get(key_id, {}), seconds.get(key_id, 0.0), stored.get(key_id, 0))

    uses = [_of_key(key, use_of(key.id)) for key in known]
    if None in jobs:
        uses.append(KeyUse(key_id=None, name=None, quotas=Quotas(), **vars(use_of(None))))
    return UsageReport(start=period.start, end=period.end, total=_total(uses), keys=uses)


def _period(session: Session, start: datetime | None, end: datetime | None) -> usage.Period:
    now = session.scalars(select(db_now())).one()
    period = usage.Period(start or usage.month_of(now).start, end or now)
    if period.start >= period.end:
        raise PeriodInvalid(f"{period.start.isoformat()} is not earlier than {period.end.isoformat()}.")
    return period


def _use(jobs: Mapping[State, int], seconds: float, stored: int) -> Use:
    return Use(
        queued_jobs=sum(jobs.get(state, 0) for state in UNHELD),
        running_jobs=sum(jobs.get(state, 0) for state in LEASED),
        gpu_seconds=round(seconds, 3),
        stored_bytes=stored,
        jobs={state: jobs.get(state, 0) for state in State},
    )


def _of_key(key: ApiKey, use: Use) -> KeyUse:
    return KeyUse(key_id=key.id, name=key.name, quotas=Quotas.model_validate(key), **vars(use))


def _total(uses: Sequence[Use]) -> Use:
    jobs: Counter[State] = Counter()
    for use in uses:
        jobs.update(use.jobs)
    return _use(jobs, sum(use.gpu_seconds for use in uses), sum(use.stored_bytes for use in uses))
