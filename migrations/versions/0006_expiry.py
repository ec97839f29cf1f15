"""Artifacts can expire, and are found by where they are stored."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is there has not expired."""
    op.add_column("artifacts", sa.Column("expired_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_artifacts_storage_key", "artifacts", ["storage_key"])
