"""Jobs know the trace of the request that made them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Jobs that are there already have none."""
    op.add_column("jobs", sa.Column("trace_id", sa.String, nullable=True))
