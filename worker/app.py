"""The Celery app: how this process listens for wake-ups. Knows nothing of jobs."""

from celery import Celery


def create_app(redis_url: str, *, slots: int) -> Celery:
    """A Celery app that only receives: no results, no remote control, no gossip.

    A wake-up carries nothing and the database is the truth, so messages are acknowledged at once
    and none is held back for a busy slot.
    """
    app = Celery("sentinel", broker=redis_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        worker_pool="threads",
        worker_concurrency=slots,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Without it a half-open connection would be waited on for ever, also at shutdown.
        broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 5, "socket_keepalive": True},
    )
    return app
