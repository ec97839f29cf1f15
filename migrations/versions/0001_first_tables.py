"""First tables: keys, jobs with their attempts, events, metrics, artifacts and checkpoints, idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
WORD = sa.String(32)


def upgrade() -> None:
    """Make the tables and the trigger that keeps ended jobs as they are."""
    create_api_keys()
    create_jobs()
    create_attempts()
    create_job_events()
    create_metrics()
    create_artifacts()
    create_checkpoints()
    create_idempotency_keys()
    forbid_changes_of_ended_jobs()


def job_id() -> sa.Column[str]:
    """The column with which a table belongs to a job."""
    return sa.Column("job_id", sa.String, nullable=False)


def belongs_to_job(table: str) -> sa.ForeignKeyConstraint:
    """Rows go when their job goes."""
    return sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=f"fk_{table}_job_id_jobs", ondelete="CASCADE")


def create_api_keys() -> None:
    """Bearer keys."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("secret_hash", sa.String, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )


def create_jobs() -> None:
    """Jobs, with indexes for the queue, for expired leases and for lists."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("phase", sa.String),
        sa.Column("cycle", sa.Integer),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("not_before", TIME, nullable=False),
        sa.Column("lease_owner", sa.String),
        sa.Column("lease_token", sa.Integer, nullable=False),
        sa.Column("lease_expires_at", TIME),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("request_id", sa.String),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_queue", "jobs", ["state", "priority", "created_at"])
    op.create_index("ix_jobs_lease", "jobs", ["state", "lease_expires_at"])
    op.create_index("ix_jobs_tenant_id", "jobs", ["tenant", "id"])


def create_attempts() -> None:
    """Tries of jobs."""
    op.create_table(
        "attempts",
        job_id(),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker", sa.String, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.Column("outcome", WORD),
        sa.Column("error", sa.JSON),
        sa.PrimaryKeyConstraint("job_id", "token", name="pk_attempts"),
        belongs_to_job("attempts"),
    )


def create_job_events() -> None:
    """History of jobs."""
    op.create_table(
        "job_events",
        job_id(),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("token", sa.Integer),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "seq", name="pk_job_events"),
        belongs_to_job("job_events"),
    )


def create_metrics() -> None:
    """Measured numbers."""
    op.create_table(
        "metrics",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        job_id(),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("cycle", sa.Integer),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_metrics"),
        belongs_to_job("metrics"),
    )
    op.create_index("ix_metrics_job_id_name_step", "metrics", ["job_id", "name", "step"])


def create_artifacts() -> None:
    """Published files."""
    op.create_table(
        "artifacts",
        sa.Column("id", sa.String, nullable=False),
        job_id(),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("storage_key", sa.String, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
        belongs_to_job("artifacts"),
    )
    op.create_index("ix_artifacts_job_id_path", "artifacts", ["job_id", "path"], unique=True)


def create_checkpoints() -> None:
    """Resume states."""
    op.create_table(
        "checkpoints",
        job_id(),
        sa.Column("cycle", sa.Integer, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("manifest", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "cycle", "token", name="pk_checkpoints"),
        belongs_to_job("checkpoints"),
    )


def create_idempotency_keys() -> None:
    """Requests that must not make a second job."""
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("request_hash", sa.String, nullable=False),
        job_id(),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_idempotency_keys"),
        belongs_to_job("idempotency_keys"),
    )


def forbid_changes_of_ended_jobs() -> None:
    """Have the database itself refuse any change of a row in a terminal state.

    A later migration that rebuilds `jobs` on SQLite must make the trigger again.
    """
    ended = "OLD.state IN ('succeeded', 'failed', 'cancelled')"
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER jobs_ended BEFORE UPDATE ON jobs WHEN {ended} "
            "BEGIN SELECT RAISE(ABORT, 'an ended job never changes'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION refuse_change_of_ended_job() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'an ended job never changes' USING ERRCODE = 'integrity_constraint_violation'; "
        "END $$"
    )
    op.execute(
        f"CREATE TRIGGER jobs_ended BEFORE UPDATE ON jobs FOR EACH ROW WHEN ({ended}) "
        "EXECUTE FUNCTION refuse_change_of_ended_job()"
    )
