"""Which board left a notice at the relay: for its quota, and for what goes when it is revoked."""

from alembic import op
from sqlalchemy import Column, String

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; of older notices nobody knows."""
    op.add_column("relay_notices", Column("sender", String(63), nullable=False, server_default=""))
    op.create_index("relay_notices_sender", "relay_notices", ["sender", "received_at_s"])
