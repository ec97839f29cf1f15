"""Jobs may be points of a sweep."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Jobs that are there already belong to none."""
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("max_parallel", sa.Integer(), nullable=True),
        sa.Column("slot_seconds", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_tenant_id", "sweeps", ["tenant", "id"])
    op.add_column("jobs", sa.Column("sweep_id", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("point", sa.JSON(), nullable=True))
    op.create_index("ix_jobs_sweep_id_id", "jobs", ["sweep_id", "id"])
