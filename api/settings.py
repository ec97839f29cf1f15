"""What an operator can set, from `SENTINEL_*` environment variables. Shared by the API and the worker.

Knows names, defaults and bounds; opens nothing.
"""

import os
import re
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sentinel.model_limits import ModelLimits
from sentinel.utils.logs import LogFormat

LIMITS = ModelLimits.model_fields
LONGEST_HEARTBEAT_S = 3.0
LONGEST_GRACE_S = 3600.0
DAY_S = 86_400.0
LONGEST_KEPT_DAYS = 36_500  # the databases cannot say what was thousands of years ago
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
RATE = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"  # how many requests in which time
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>\d{1,5}))?", re.IGNORECASE)
SECRETS = Path("/run/secrets")  # where containers find a secret: in a file named like its variable, in small letters


class Settings(BaseSettings):
    """Settings of one installation. Everything has a default that runs on one host."""

    model_config = SettingsConfigDict(
        env_prefix="SENTINEL_",
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        frozen=True,
        extra="forbid",
        validate_default=True,
        env_ignore_empty=True,
    )

    home: Path = Field(Path(".sentinel"), description="Folder of everything that the defaults below keep on disk.")
    database_url: str = Field(
        default_factory=lambda data: f"sqlite:///{quote(str(data['home'] / 'sentinel.db'))}",
        description="SQLAlchemy URL of the database that holds the jobs: SQLite or PostgreSQL.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="The broker that wakes workers; `redis+socket:///path` for a Unix socket.",
    )
    storage_uri: str = Field(
        default_factory=lambda data: (data["home"] / "storage").as_uri(),
        description="Where checkpoints and artifacts live: `file:///folder`, or `s3://bucket/prefix` with `AWS_*` set.",
    )
    presigned_downloads: bool = Field(
        default=False,
        description="Send downloads to an S3 storage's own URLs. Off by default, as clients have to reach the storage.",
    )
    presigned_ttl_s: int = Field(300, gt=0, le=900, description="Seconds for which such a URL can be used.")
    model_roots: Annotated[list[Path], NoDecode] = Field(
        [],
        description="Folders that `source: path` of models and data may lie in, parted like PATH; none by default.",
    )
    max_parameters: int = Field(LIMITS["parameters"].default, ge=1, description="Most parameters of a model.")
    max_weight_bytes: int = Field(
        LIMITS["weight_bytes"].default, ge=1, description="Most bytes that a model's tensors take on disk."
    )
    max_layers: int = Field(LIMITS["layers"].default, ge=1, description="Most decoder layers of a model.")
    max_positions: int = Field(
        LIMITS["positions"].default, ge=1, description="Longest text in tokens that a model reads."
    )
    max_vocabulary: int = Field(LIMITS["vocabulary"].default, ge=1, description="Most tokens that a model knows.")
    cache: Path = Field(
        default_factory=lambda data: data["home"] / "cache",
        description="Folder in which workers keep the tokens of texts from one job to the next; without `HF_HOME` also "
        "what they download.",
    )
    lease_s: float = Field(60.0, gt=0, description="Seconds without a heartbeat after which a worker counts as lost.")
    heartbeat_s: float = Field(
        default_factory=lambda data: min(LONGEST_HEARTBEAT_S, data["lease_s"] / 6),
        gt=0,
        description="Seconds between a worker's heartbeats, after which it knows of a pause or a cancel; "
        "3, or a sixth of the lease if that is less; at most half of it.",
    )
    grace_s: float = Field(
        30.0, ge=0, le=LONGEST_GRACE_S, description="Seconds that a job which is to stop gets to finish its cycle."
    )
    reconcile_s: float = Field(5.0, gt=0, description="Seconds between looks for expired leases and waiting jobs.")
    retention_days: float | None = Field(
        None,
        gt=0,
        le=LONGEST_KEPT_DAYS,
        description="Days after a job's end in which its files can be downloaded; for ever by default.",
    )
    orphans_after_s: float = Field(
        DAY_S,
        ge=0,
        le=LONGEST_KEPT_DAYS * DAY_S,
        description="Age in seconds from which a stored file that nothing names is deleted.",
    )
    collect_s: float = Field(3600.0, gt=0, description="Seconds between looks for files that can be deleted.")
    webhooks_s: float = Field(1.0, gt=0, description="Seconds between looks for webhooks that have to be told.")
    outbound_allowed_hosts: Annotated[list[str], NoDecode] = Field(
        [],
        description="Names, addresses and networks, parted by commas, that webhooks may lead to though they are not on "
        "the internet, also without TLS and on any port; none by default.",
    )
    max_attempts: int = Field(3, ge=1, description="Tries before a job whose workers get lost fails.")
    log_format: LogFormat = Field(
        LogFormat.TEXT, description="How log lines look: `text` for people, `json` for one JSON object a line."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port on which each worker answers Prometheus; none by default."
    )
    slots: int = Field(
        1,
        ge=1,
        description="Jobs that a worker runs at the same time on each of its devices: its GPUs, or else its processor.",
    )
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest request body.")
    rate_limit: str | None = Field(
        None,
        pattern=RATE,
        description="Requests that each key may send, like `600/minute`; as many as it likes without.",
    )
    wrong_key_limit: str = Field(
        "600/minute", pattern=RATE, description="Wrong keys after which what else an address sends is not looked at."
    )
    max_upload_file_bytes: int = Field(20 * 1024**3, gt=0, le=78 * 1024**3, description="Largest file of an upload.")
    max_upload_files: int = Field(200, ge=1, description="Most files of an upload.")
    max_upload_bytes: int = Field(50 * 1024**3, gt=0, description="Most bytes of an upload, unpacked.")
    max_tenant_upload_bytes: int = Field(200 * 1024**3, gt=0, description="Most bytes of all uploads of a tenant.")
    uploads_abandoned_s: float = Field(
        DAY_S,
        gt=0,
        le=LONGEST_KEPT_DAYS * DAY_S,
        description="Seconds without a new file after which an unfinished upload is deleted.",
    )
    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        [],
        description="Names, or `name:port`, by which clients may call the API, parted by commas. At a loopback address "
        "it answers to loopback's own names too; without any here, at every other address to all names.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on; 0 takes a free one.")

    @property
    def retention_s(self) -> float | None:
        """`retention_days` in seconds."""
        return None if self.retention_days is None else self.retention_days * DAY_S

    @property
    def model_limits(self) -> ModelLimits:
        """How large a model may be."""
        return ModelLimits(
            parameters=self.max_parameters,
            weight_bytes=self.max_weight_bytes,
            layers=self.max_layers,
            positions=self.max_positions,
            vocabulary=self.max_vocabulary,
        )

    @field_validator("heartbeat_s")
    @classmethod
    def _check_heartbeat(cls, heartbeat_s: float, info: ValidationInfo) -> float:
        lease_s = info.data.get("lease_s")
        if lease_s is not None and heartbeat_s > lease_s / 2:
            raise ValueError(f"a lease of {lease_s:g} s must outlive a lost heartbeat: at most half of it")
        return heartbeat_s

    @field_validator("home", "cache")
    @classmethod
    def _resolve(cls, folder: Path) -> Path:
        return folder.expanduser().resolve()

    @field_validator("allowed_hosts", "outbound_allowed_hosts", mode="before")
    @classmethod
    def _split_by_commas(cls, hosts: Any) -> Any:  # noqa: ANN401 - a list, or the variable's text
        return [part.strip() for part in hosts.split(",") if part.strip()] if isinstance(hosts, str) else hosts

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not HOST.fullmatch(host):
                raise ValueError(
                    f"{host!r} is no host: write `name`, `name:port` or `[address]:port`, without a scheme"
                )
        return [host.lower() for host in hosts]

    @field_validator("model_roots", mode="before")
    @classmethod
    def _split(cls, roots: Any) -> Any:  # noqa: ANN401 - a list, or the variable's text
        if isinstance(roots, str):
            roots = [part for part in roots.split(os.pathsep) if part]
        return [Path(root).expanduser().resolve() for root in roots]

    @field_validator("outbound_allowed_hosts")
    @classmethod
    def _check_outbound(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            _check_host(host)
        return hosts


def _check_host(host: str) -> None:
    """A network that is none must not pass for a name that nobody has."""
    with suppress(ValueError):
        ip_network(host)
        return
    if not HOST_NAME.fullmatch(host):
        raise ValueError(f"{host!r} is neither the name of a host nor an address nor a network")
