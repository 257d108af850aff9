"""The board's decisions that the coordinator looked at, and what it did."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "board_decisions",
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("digest", String(64), nullable=False, unique=True),
        Column("study_id", String(63), nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("action", String(20), nullable=False),
        Column("signers", Text, nullable=False),
        Column("outcome", String(20), nullable=False),
        Column("detail", Text, nullable=False),
        Column("at_s", BigInteger, nullable=False),
        Column("notice", LargeBinary, nullable=False),
    )
