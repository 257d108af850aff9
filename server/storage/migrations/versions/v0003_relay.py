"""What the relay keeps: sealed reports, signed notices with their bodies, pinned rosters."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, UniqueConstraint

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "relay_reports",
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("study_id", String(63), nullable=False),
        Column("site_id", String(63), nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("digest", String(64), nullable=False, unique=True),
        Column("previous", String(64), nullable=False),
        Column("envelope", LargeBinary, nullable=False),
        Column("received_at_s", BigInteger, nullable=False),
        UniqueConstraint("study_id", "site_id", "sequence"),
    )
    op.create_table(
        "relay_notices",
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("kind", String(20), nullable=False),
        Column("site_id", String(63), nullable=False),
        Column("digest", String(64), nullable=False, unique=True),
        Column("notice", LargeBinary, nullable=False),
        Column("body_bytes", BigInteger, nullable=False),
        Column("received_at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "relay_bodies",
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("part", Integer, primary_key=True, autoincrement=False),
        Column("content", LargeBinary, nullable=False),
    )
    op.create_table(
        "relay_rosters",
        Column("version", BigInteger, primary_key=True, autoincrement=False),
        Column("digest", String(64), nullable=False, unique=True),
        Column("content", LargeBinary, nullable=False),
        Column("pinned_at_s", BigInteger, nullable=False),
    )
