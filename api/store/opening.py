"""Opens what a storage URI names, and says in our words what goes wrong there.

Knows `obstore`'s stores and errors, and no keys. An S3 store reads its endpoint, region and credentials from `AWS_*`
variables by itself.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from api.store.errors import ObjectMissing, StorageUnavailable, StorageUriInvalid
from sentinel.utils.disk import shortage

# What the library's text has in it → what to do; the first that fits. It has one error for almost everything.
NEXT_STEPS = {
    "/latest/api/token": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without them, the host's role is asked for.",
    "NoSuchBucket": "Create the bucket, or name another one in SENTINEL_STORAGE_URI.",
    "403 Forbidden": "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may get, put, list and delete.",
    "builder error": "Set AWS_ALLOW_HTTP=true if AWS_ENDPOINT_URL is to be plain HTTP.",
}


def open_store(uri: str) -> LocalStore | S3Store:
    """The store of `file:///folder`, which is made if missing, or of `s3://bucket/prefix`, which is not asked yet.

    Raises:
        StorageUriInvalid: It is neither.
    """
    try:
        if uri.startswith("file:"):
            return LocalStore.from_url(uri, mkdir=True, automatic_cleanup=True)
        if uri.startswith("s3:"):
            # Few tries: whoever asked comes again, the worker by its next attempt and clients by `Retry-After`.
            return S3Store.from_url(uri, retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=20)})
    except (BaseError, ValueError) as error:
        raise StorageUriInvalid(uri, _cause(error)) from error
    raise StorageUriInvalid(uri, "it has another scheme")


@contextmanager
def telling(store: LocalStore | S3Store, key: str) -> Iterator[None]:
    """What goes wrong with an object, as one of our errors.

    Raises:
        ObjectMissing: Nothing lies under the key.
        OSError: With ENOSPC or EDQUOT: there is no space left.
        StorageUnavailable: Anything else.
    """
    try:
        yield
    except (FileNotFoundError, BaseError) as error:
        if isinstance(store, LocalStore):
            _check_space(error, key)
        step = next((step for marker, step in NEXT_STEPS.items() if marker in str(error)), None)
        if step is None and isinstance(error, FileNotFoundError):
            raise ObjectMissing(key) from error
        raise StorageUnavailable(_cause(error), next_step=step) from error


def _check_space(error: Exception, key: str) -> None:
    if number := shortage(error):
        raise OSError(number, os.strerror(number), key) from error


def _cause(error: Exception) -> str:
    """The library's words without its inner state, and the code in a store's XML instead of the XML."""
    text = str(error).partition("\n\nDebug source")[0]
    code = re.search("<Code>([^<]*)</Code>", text)
    said = text.partition("<")[0].strip()
    return f"{said} {code[1]}" if code else said
