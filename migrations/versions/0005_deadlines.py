"""Jobs may have a deadline."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Jobs that are there already have none."""
    op.add_column("jobs", sa.Column("deadline", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_state_deadline", "jobs", ["state", "deadline"])
