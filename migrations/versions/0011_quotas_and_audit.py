"""Keys have quotas and rates, jobs name the key that submitted them, and what was done is written down."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keys that are there have no quota, and jobs that are there count for none."""
    op.add_column("api_keys", sa.Column("max_queued_jobs", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("max_running_jobs", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("max_gpu_seconds", sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("rate_limit", sa.String(), nullable=True))
    op.create_index("ix_api_keys_tenant_created_at_id", "api_keys", ["tenant", "created_at", "id"])
    op.add_column("jobs", sa.Column("key_id", sa.String(), nullable=True))
    op.create_index("ix_jobs_tenant_key_id_state_finished_at", "jobs", ["tenant", "key_id", "state", "finished_at"])
    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("client", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_tenant_id", "audit_log", ["tenant", "id"])
