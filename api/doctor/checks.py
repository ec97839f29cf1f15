"""The checks of everything but the database: settings, packages, Redis, storage, disks, the API itself."""

import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from api import dispatch
from api.doctor.findings import Seen, Status
from api.errors import Problem
from api.health import Readiness
from api.settings import Settings
from api.store.errors import ObjectMissing
from api.store.storage import Storage
from sentinel.utils.sandbox import network_obstacle

PACKAGE = "sentinel-pruning"
CLIENT_VARIABLES = frozenset({"SENTINEL_URL", "SENTINEL_API_KEY"})  # of the command that talks to a service
GB = 10**9
LITTLE_BYTES = 10 * GB  # a few models with their checkpoints
NOTHING_BYTES = GB
API_TIMEOUT_S = 10.0


def settings(_settings: Settings) -> Seen:
    """Names in the environment that nobody reads are likely misspelt."""
    given = {name for name in os.environ if name.startswith("SENTINEL_")} - CLIENT_VARIABLES
    unknown = given - {f"SENTINEL_{field.upper()}" for field in Settings.model_fields}
    if unknown:
        step = "Correct or remove them; api/settings.py lists every setting."
        return Seen(Status.WARNING, f"no setting is called {', '.join(sorted(unknown))}", step)
    return Seen(Status.OK, f"from the environment: {', '.join(sorted(given)) or 'none, so all are defaults'}")


def packages(_settings: Settings) -> Seen:
    """The versions that are installed, against those that this version asks for."""
    torch = _version("torch")
    unmet = [*_unmet("api"), *(_unmet("core") if torch else ())]
    worker = f"worker (torch {torch})" if torch else "no worker (no torch)"
    found = f"Python {platform.python_version()}, Sentinel {metadata.version(PACKAGE)}: API, {worker}"
    if unmet:
        extra = "worker" if torch else "api"
        step = f"Run `pip install --upgrade '{PACKAGE}[{extra}]'` with the pinned versions of constraints.txt."
        return Seen(Status.BROKEN, f"{found}; not met: {', '.join(unmet)}", step)
    return Seen(Status.OK, found)


def _unmet(extra: str) -> Iterator[str]:
    """What the part needs and is not there, Python among it."""
    python = metadata.metadata(PACKAGE)["Requires-Python"]
    if platform.python_version() not in SpecifierSet(python):
        yield f"Python {python}"
    for requirement in map(Requirement, metadata.requires(PACKAGE) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found = _version(requirement.name)
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                yield f"{requirement.name}{requirement.specifier} (found {found or 'none'})"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def redis(settings: Settings) -> Seen:
    """Only a wake-up: without it jobs are accepted and lost by nobody, but start when it is back."""
    if dispatch.redis_answers(settings.redis_url):
        return Seen(Status.OK, f"{settings.redis_url} answers")
    step = "Start Redis, or correct SENTINEL_REDIS_URL. Jobs are accepted meanwhile and start once it answers."
    return Seen(Status.WARNING, f"{settings.redis_url} does not answer", step)


def storage(settings: Settings) -> Seen:
    """Write a small object, which is read back and compared at once, and remove it."""
    store = Storage(settings.storage_uri)
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe"
        probe.write_bytes(secrets.token_bytes(32))
        key = store.put_file(probe, "doctor").key
    store.delete([key])
    try:
        store.head(key)
    except ObjectMissing:
        return Seen(Status.OK, f"{settings.storage_uri} can be written, read and cleared")
    step = f"Let this user delete objects, then delete {key}."
    return Seen(Status.BROKEN, f"{settings.storage_uri} does not delete {key}", step)


def sandbox(_settings: Settings) -> Seen:
    """Whether a worker on this host could take the network from jobs that fetch nothing."""
    if (obstacle := network_obstacle()) is not None:
        step = "Let workers reach no more than they need by other means, or run them on Linux; see docs/security.md."
        return Seen(Status.WARNING, f"a job here could reach whatever this host does: {obstacle}", step)
    return Seen(Status.OK, "a job here has no network unless its spec names the hub or a task")


def disk(settings: Settings) -> Seen:
    """Free space where the home is, and the storage if it is a folder."""
    places = {settings.home}
    if settings.storage_uri.startswith("file:"):
        places.add(Path(url2pathname(urlsplit(settings.storage_uri).path)))
    free = {place: shutil.disk_usage(_existing(place)).free for place in sorted(places)}
    text = ", ".join(f"{count / GB:.1f} GB free for {place}" for place, count in free.items())
    if min(free.values()) >= LITTLE_BYTES:
        return Seen(Status.OK, text)
    step = "Free space or move the folder; SENTINEL_RETENTION_DAYS lets files of ended jobs expire."
    return Seen(Status.BROKEN if min(free.values()) < NOTHING_BYTES else Status.WARNING, text, step)


def _existing(place: Path) -> Path:
    """The place, or the folder in which it will be made."""
    return next(path for path in (place, *place.parents) if path.exists())


def api(_settings: Settings, *, url: str) -> Seen:
    """Whether an API says that it is ready."""
    step = "Start the API, or correct --url (SENTINEL_URL)."
    try:
        answer = httpx.get(f"{url}/readyz", timeout=API_TIMEOUT_S)
    except (httpx.RequestError, httpx.InvalidURL, ValueError) as error:  # ValueError: a host that IDNA forbids
        return Seen(Status.BROKEN, f"{url} does not answer: {error}", step)
    try:
        said = (Readiness if answer.is_success else Problem).model_validate_json(answer.content)
    except ValueError:
        return Seen(Status.BROKEN, f"{url} answers HTTP {answer.status_code}, and not as an API does", step)
    if isinstance(said, Problem):
        return Seen(Status.BROKEN, f"{url} is not ready: {said.detail}", said.next_step)
    if said.status == "degraded":
        return Seen(Status.WARNING, f"{url} is ready, but reaches no Redis", "Let that host reach Redis.")
    return Seen(Status.OK, f"{url} is ready")
