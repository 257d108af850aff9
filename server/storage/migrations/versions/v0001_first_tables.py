"""The first tables: sites, roster, studies, rounds, answers, model versions and actions."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
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
    op.create_table(
        "sites",
        Column("site_id", String(63), primary_key=True),
        Column("organisation", Text, nullable=False),
        Column("contact", Text, nullable=False),
        Column("verify_key", Text, nullable=False, unique=True),
        Column("sealing_key", Text, nullable=False),
        Column("node_public_key", Text, nullable=False, unique=True),
        Column("certificate", Text, nullable=False),
        Column("is_active", Boolean, nullable=False),
        Column("admitted_at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "roster_versions",
        Column("version", Integer, primary_key=True, autoincrement=True),
        Column("reason", Text, nullable=False),
        Column("at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "studies",
        Column("study_id", String(63), primary_key=True),
        Column("plan_digest", String(64), nullable=False),
        Column("plan", LargeBinary, nullable=False),
        Column("signature", LargeBinary, nullable=False),
        Column("state", String(20), nullable=False),
        Column("reason", Text, nullable=False),
        Column("flower_run_id", String(32), nullable=False),
        Column("restarts", Integer, nullable=False),
        Column("registered_at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "rounds",
        Column("study_id", String(63), primary_key=True),
        Column("round_number", Integer, primary_key=True),
        Column("state", String(20), nullable=False),
        Column("base_version", String(64), nullable=False),
        Column("new_version", String(64), nullable=False),
        Column("optimizer_state", String(64), nullable=False),
        Column("reason", Text, nullable=False),
        Column("started_at_s", BigInteger, nullable=False),
        Column("finished_at_s", BigInteger, nullable=False),
    )
    op.create_table(
        "answers",
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("study_id", String(63), nullable=False, index=True),
        Column("round_number", Integer, nullable=False),
        Column("site_id", String(63), nullable=False),
        Column("outcome", String(30), nullable=False),
        Column("number", Text, nullable=False),
        Column("release_id", String(64), nullable=False),
        Column("detail", Text, nullable=False),
        Column("at_s", BigInteger, nullable=False),
    )
    _create_model_tables()


def _create_model_tables() -> None:
    op.create_table(
        "model_versions",
        Column("version", String(64), primary_key=True),
        Column("study_id", String(63), nullable=False, index=True),
        Column("round_number", Integer, nullable=False),
        Column("plan_digest", String(64), nullable=False),
        Column("lineage", Text, nullable=False),
        Column("created_at_s", BigInteger, nullable=False),
        UniqueConstraint("study_id", "round_number"),
    )
    op.create_table(
        "model_actions",
        Column("sequence", Integer, primary_key=True, autoincrement=False),
        Column("entry", LargeBinary, nullable=False),
        Column("signature", LargeBinary, nullable=False),
    )
