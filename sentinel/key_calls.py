"""What can be asked of a service about its keys, what they have taken and what was done with them.

All of it needs a key with the scope `admin`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_jsonable_python

from sentinel.endpoint import path_of
from sentinel.replies import AuditEntry, Key, NewKey, Page, Usage
from sentinel.transport import Calls


class KeyCalls(Calls):
    """Keys, usage and the audit log."""

    async def make_key(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        expires_at: datetime | None = None,
        quotas: Mapping[str, int | None] | None = None,
        rate_limit: str | None = None,
    ) -> NewKey:
        """Make a key; the answer has its only copy.

        Args:
            name: What it is for.
            scopes: Of `read`, `submit` and `admin`; only what the own key may.
            expires_at: When it ends, with a time zone; never without.
            quotas: Of `max_queued_jobs`, `max_running_jobs`, `max_gpu_seconds` and `max_stored_bytes`.
            rate_limit: Like `600/minute`; as the service has it without.

        Raises:
            OutcomeUnknown: The connection broke before the answer.
        """
        order: dict[str, Any] = {"name": name, "scopes": scopes, "quotas": quotas or {}, "rate_limit": rate_limit}
        document = to_jsonable_python(order | {"expires_at": expires_at})
        return await self._session.make_once(NewKey, "/v1/keys", json=document)

    async def get_key(self, key_id: str) -> Key:
        """One key, without its secret."""
        return await self._session.read(Key, path_of("keys", key_id))

    def list_keys(self, *, page_size: int | None = None) -> AsyncGenerator[Key, None]:
        """Keys, newest first, those that ended too; fetched page by page."""
        return self._session.pages(Page[Key], "/v1/keys", limit=page_size)

    async def change_key(self, /, key_id: str, **changes: object) -> Key:
        """Change a key's `name`, `expires_at`, `quotas` or `rate_limit`.

        What is not named stays, also of the quotas; None takes a limit or an end away.
        """
        return await self._session.change(Key, path_of("keys", key_id), changes)

    async def revoke_key(self, key_id: str) -> Key:
        """End a key for good. The jobs that it submitted go on."""
        return await self._session.ask(Key, path_of("keys", key_id, "revoke"))

    async def usage(
        self, *, key_id: str | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> Usage:
        """What the keys have taken, or one of them; time in slots since the month's start unless said otherwise."""
        return await self._session.read(Usage, "/v1/usage", key_id=key_id, **{"from": start, "to": end})

    def audit(
        self, *, action: str | None = None, key_id: str | None = None, page_size: int | None = None
    ) -> AsyncGenerator[AuditEntry, None]:
        """Who did what, newest first, fetched page by page; of one kind, like `key.make`, or by one key."""
        query = {"action": action, "key_id": key_id, "limit": page_size}
        return self._session.pages(Page[AuditEntry], "/v1/audit", **query)
