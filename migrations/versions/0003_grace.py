"""Jobs know how long they may go on after they were asked to stop, and which cycle they have kept."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """States that earlier versions kept cannot be resumed by this one: a job that has one starts over when claimed."""
    op.add_column("jobs", sa.Column("grace_s", sa.Double, nullable=True))
    op.add_column("jobs", sa.Column("kept_cycle", sa.Integer, nullable=True))
    op.execute("DELETE FROM checkpoints")
