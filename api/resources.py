"""What the requests of one process share, and the one way a request gets a transaction.

One request is one transaction: services flush, the edge commits before the response is sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.metrics import Metrics
from api.news import News
from api.outbound import Outbound
from api.rates import Rates
from api.settings import Settings
from api.store.database import Database, create_database
from api.store.storage import Storage

STORED_AT_ONCE = 4  # files of uploads; each holds 32 MiB in memory, and a large one a thread for minutes

PARSED_AT_ONCE = 1  # documents; more would share one processor all the same, and each would slow all other requests


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Opened once per process.

    `stopping` is set once the server has been asked to stop; `storing` limits how many uploads' files go into the
    storage at once, `parsing` how many documents are read at once.
    """

    settings: Settings
    database: Database
    storage: Storage
    stopping: Event
    news: News
    metrics: Metrics
    outbound: Outbound
    rates: Rates
    storing: CapacityLimiter
    parsing: CapacityLimiter


def open_resources(settings: Settings) -> Resources:
    """Open what the settings name; connections are made when first needed."""
    database, stopping = create_database(settings.database_url), Event()
    return Resources(
        settings=settings,
        database=database,
        storage=Storage(settings.storage_uri),
        stopping=stopping,
        news=News(database, stopping),
        metrics=Metrics(),
        outbound=Outbound(settings.outbound_allowed_hosts),
        rates=Rates(settings.redis_url),
        storing=CapacityLimiter(STORED_AT_ONCE),
        parsing=CapacityLimiter(PARSED_AT_ONCE),
    )


async def _of(request: Request) -> Resources:  # not in a thread: each hop to one waits for the interpreter's lock
    resources: Resources = request.app.state.resources
    return resources


Shared = Annotated[Resources, Depends(_of)]


def _reading(resources: Shared) -> Iterator[Session]:
    with resources.database.reading() as session:
        yield session


def _writing(resources: Shared) -> Iterator[Session]:
    with resources.database.transaction() as session:
        yield session


# Function scope: the commit comes before the response, and its failure still becomes a problem document.
ReadSession = Annotated[Session, Depends(_reading, scope="function")]
WriteSession = Annotated[Session, Depends(_writing, scope="function")]
