"""The number of patients that a site may declare at most, fixed by the coordinator at admission."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; a site admitted before may declare nothing until its number is set."""
    op.add_column(
        "sites", Column("cohort_size_max", BigInteger, nullable=False, server_default="0")
    )
