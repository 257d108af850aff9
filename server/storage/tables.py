"""The coordinator's tables as SQLAlchemy metadata; `migrations/` brings a database to this form."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

sites = Table(
    "sites",
    metadata,
    Column("site_id", String(63), primary_key=True),
    Column("organisation", Text, nullable=False),
    Column("contact", Text, nullable=False),
    Column("verify_key", Text, nullable=False, unique=True),
    Column("sealing_key", Text, nullable=False),
    Column("node_public_key", Text, nullable=False, unique=True),
    Column("certificate", Text, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("admitted_at_s", BigInteger, nullable=False),
    Column("cohort_size_max", BigInteger, nullable=False, server_default="0"),
)

roster_versions = Table(
    "roster_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=True),
    Column("reason", Text, nullable=False),
    Column("at_s", BigInteger, nullable=False),
)

studies = Table(
    "studies",
    metadata,
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

rounds = Table(
    "rounds",
    metadata,
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

answers = Table(
    "answers",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_id", String(63), nullable=False, index=True),
    Column("round_number", Integer, nullable=False),
    Column("site_id", String(63), nullable=False),
    # accepted, refused-by-site, refused-by-coordinator or missing
    Column("outcome", String(30), nullable=False),
    Column("number", Text, nullable=False),
    Column("release_id", String(64), nullable=False),
    # canonical JSON: declared cohort size, statement, evaluation, mechanisms
    Column("detail", Text, nullable=False),
    Column("at_s", BigInteger, nullable=False),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("version", String(64), primary_key=True),
    Column("study_id", String(63), nullable=False, index=True),
    Column("round_number", Integer, nullable=False),
    Column("plan_digest", String(64), nullable=False),
    Column("lineage", Text, nullable=False),
    Column("created_at_s", BigInteger, nullable=False),
    UniqueConstraint("study_id", "round_number"),
)

model_actions = Table(
    "model_actions",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

# Positions are given by the one writer in the order of commits: a reader that asks for what comes
# after a position can never miss a row that appears later.
relay_reports = Table(
    "relay_reports",
    metadata,
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

relay_notices = Table(
    "relay_notices",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(20), nullable=False),
    # empty: for every member
    Column("site_id", String(63), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("notice", LargeBinary, nullable=False),
    Column("body_bytes", BigInteger, nullable=False),
    Column("received_at_s", BigInteger, nullable=False),
    # the board or aggregator that left it; empty: the coordinator's own machine
    Column("sender", String(63), nullable=False, server_default=""),
    Index("relay_notices_sender", "sender", "received_at_s"),
)

# The parameters beside a promotion, in parts, so that no process holds them whole.
relay_bodies = Table(
    "relay_bodies",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)

relay_rosters = Table(
    "relay_rosters",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("content", LargeBinary, nullable=False),
    Column("pinned_at_s", BigInteger, nullable=False),
)

# The monitor board's decisions, each looked at once.
board_decisions = Table(
    "board_decisions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("study_id", String(63), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("action", String(20), nullable=False),
    Column("signers", Text, nullable=False),
    # done, recorded, not possible or refused
    Column("outcome", String(20), nullable=False),
    Column("detail", Text, nullable=False),
    Column("at_s", BigInteger, nullable=False),
    Column("notice", LargeBinary, nullable=False),
)
