"""Notices that wait for a roster, and why a decision was not valid any more when it came."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table and the column."""
    op.create_table(
        "waiting_notices",
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("notice", LargeBinary, nullable=False),
    )
    op.add_column("decisions", Column("objection", Text, nullable=False, server_default=""))
