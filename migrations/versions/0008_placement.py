"""Jobs say what they need of a device, and workers what theirs have."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is there may run on any device, as before."""
    op.add_column("jobs", sa.Column("device", sa.String(), nullable=False, server_default="auto"))
    op.add_column("jobs", sa.Column("needs_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("slots", sa.JSON(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
