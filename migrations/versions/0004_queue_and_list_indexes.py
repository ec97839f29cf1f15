"""The queue is read in its order from an index, and so are lists of one state or one name."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The first index of the queue could not serve two columns in opposite orders."""
    op.drop_index("ix_jobs_queue", "jobs")
    op.create_index("ix_jobs_queue", "jobs", ["state", sa.desc("priority"), "created_at", "id"])
    op.create_index("ix_jobs_tenant_state_id", "jobs", ["tenant", "state", "id"])
    op.create_index("ix_jobs_tenant_name_id", "jobs", ["tenant", "name", "id"])
