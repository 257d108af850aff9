"""The first tables: chains of reports, what is wrong with them, plans, rosters, decisions."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    _create_chain()
    _create_findings()
    _create_plans()
    _create_words()


def _create_chain() -> None:
    op.create_table(
        "envelopes",
        Column("digest", String(64), primary_key=True),
        Column("content", LargeBinary, nullable=False),
    )
    op.create_table(
        "reports",
        Column("study_id", String(63), primary_key=True),
        Column("site_id", String(63), primary_key=True),
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        Column("digest", String(64), ForeignKey("envelopes.digest"), nullable=False, unique=True),
        Column("kind", String(20), nullable=False),
        Column("period", String(16), nullable=False),
        Column("model_version", String(64), nullable=False),
        Column("roster", String(64), nullable=False),
        Column("key_epoch", BigInteger, nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("received_at_s", BigInteger, nullable=False),
        Column("taken_at_s", BigInteger, nullable=False),
        Column("refusal", String(8), nullable=False),
        Column("counts", LargeBinary, nullable=False),
        Column("epsilon_spent", Float, nullable=False),
        Column("epsilon_remaining", Float, nullable=False),
        Column("delta", Float, nullable=False),
        Column("detail", Text, nullable=False),
    )
    op.create_table(
        "chain_heads",
        Column("study_id", String(63), primary_key=True),
        Column("site_id", String(63), primary_key=True),
        Column("sequence", BigInteger, nullable=False),
        Column("digest", String(64), nullable=False),
    )
    op.create_index("reports_of_study", "reports", ["study_id", "refusal"])


def _create_findings() -> None:
    op.create_table(
        "waiting",
        Column("digest", String(64), ForeignKey("envelopes.digest"), primary_key=True),
        Column("study_id", String(63), nullable=False),
        Column("site_id", String(63), nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("received_at_s", BigInteger, nullable=False),
        Column("number", String(4), nullable=False),
    )
    op.create_table(
        "gaps",
        Column("study_id", String(63), primary_key=True),
        Column("site_id", String(63), primary_key=True),
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        Column("opened_at_s", BigInteger, nullable=False),
        Column("filled_at_s", BigInteger, nullable=True),
    )
    op.create_table(
        "refusals",
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("position", BigInteger, nullable=False),
        Column("digest", String(64), nullable=False),
        Column("study_id", String(63), nullable=False),
        Column("site_id", String(63), nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("number", String(4), nullable=False),
        Column("expected", Text, nullable=False),
        Column("arrived", Text, nullable=False),
        Column("at_s", BigInteger, nullable=False),
        UniqueConstraint("digest", "number"),
    )
    op.create_table(
        "flags",
        Column("study_id", String(63), primary_key=True),
        Column("site_id", String(63), primary_key=True),
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        Column("check_name", String(30), primary_key=True),
        Column("words", Text, nullable=False),
    )


def _create_plans() -> None:
    op.create_table(
        "plans",
        Column("study_id", String(63), primary_key=True),
        Column("plan_digest", String(64), nullable=False),
        Column("plan", LargeBinary, nullable=False),
        Column("added_at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "cohorts",
        Column("study_id", String(63), primary_key=True),
        Column("site_id", String(63), primary_key=True),
        Column("patients_max", BigInteger, nullable=False),
    )
    op.create_table(
        "promotions",
        Column("study_id", String(63), primary_key=True),
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        Column("model_version", String(64), nullable=False),
        Column("plan_digest", String(64), nullable=False),
        Column("at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "rosters",
        Column("version", BigInteger, primary_key=True, autoincrement=False),
        Column("digest", String(64), nullable=False, unique=True),
        Column("content", LargeBinary, nullable=False),
        Column("taken_at_s", BigInteger, nullable=False),
    )


def _create_words() -> None:
    op.create_table(
        "decisions",
        Column("study_id", String(63), primary_key=True),
        Column("number", BigInteger, primary_key=True, autoincrement=False),
        Column("digest", String(64), nullable=False, unique=True),
        Column("notice", LargeBinary, nullable=False),
        Column("taken_at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "notices_out",
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("kind", String(20), nullable=False),
        Column("digest", String(64), nullable=False, unique=True),
        Column("notice", LargeBinary, nullable=False),
        Column("made_at_s", BigInteger, nullable=False),
        Column("published_at_s", BigInteger, nullable=True, index=True),
        Column("refusal", String(20), nullable=False),
    )
    op.create_table(
        "refused_notices",
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("digest", String(64), nullable=False),
        Column("reason", Text, nullable=False),
        Column("at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "positions",
        Column("stream", String(80), primary_key=True),
        Column("position", BigInteger, nullable=False),
    )
