"""Jobs know the job that they try again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Jobs that are there already have no parent."""
    op.add_column("jobs", sa.Column("parent_id", sa.String, nullable=True))
