"""The board's tables as SQLAlchemy metadata; `migrations/` brings a database to this form."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
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

# Envelopes as they arrived: evidence, and what another board can be compared with.
envelopes = Table(
    "envelopes",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

# The chain of each site: every envelope that has a place in it, used or not.
reports = Table(
    "reports",
    metadata,
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
    # empty: the report is used; else the number of its refusal, or "share"
    Column("refusal", String(8), nullable=False),
    # int32, little-endian, tensor after tensor as in the plan; empty when it was never opened
    Column("counts", LargeBinary, nullable=False),
    Column("epsilon_spent", Float, nullable=False),
    Column("epsilon_remaining", Float, nullable=False),
    Column("delta", Float, nullable=False),
    # canonical JSON: mechanisms, ledger head, software version
    Column("detail", Text, nullable=False),
    Index("reports_of_study", "study_id", "refusal"),
)

chain_heads = Table(
    "chain_heads",
    metadata,
    Column("study_id", String(63), primary_key=True),
    Column("site_id", String(63), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
)

# Reports that wait: for one before them (B9), or for a roster that is not here yet (B3).
waiting = Table(
    "waiting",
    metadata,
    Column("digest", String(64), ForeignKey("envelopes.digest"), primary_key=True),
    Column("study_id", String(63), nullable=False),
    Column("site_id", String(63), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("received_at_s", BigInteger, nullable=False),
    Column("number", String(4), nullable=False),
)

# Sequence numbers that are missing; open until filled.
gaps = Table(
    "gaps",
    metadata,
    Column("study_id", String(63), primary_key=True),
    Column("site_id", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("opened_at_s", BigInteger, nullable=False),
    Column("filled_at_s", BigInteger, nullable=True),
)

refusals = Table(
    "refusals",
    metadata,
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

# What looks implausible in a report that was accepted.
flags = Table(
    "flags",
    metadata,
    Column("study_id", String(63), primary_key=True),
    Column("site_id", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("check_name", String(30), primary_key=True),
    Column("words", Text, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("study_id", String(63), primary_key=True),
    Column("plan_digest", String(64), nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("added_at_s", BigInteger, nullable=False),
)

# The most patients that a site may declare in a study, as a person told the board.
cohorts = Table(
    "cohorts",
    metadata,
    Column("study_id", String(63), primary_key=True),
    Column("site_id", String(63), primary_key=True),
    Column("patients_max", BigInteger, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("study_id", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("model_version", String(64), nullable=False),
    Column("plan_digest", String(64), nullable=False),
    Column("at_s", BigInteger, nullable=False),
)

rosters = Table(
    "rosters",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("content", LargeBinary, nullable=False),
    Column("taken_at_s", BigInteger, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("study_id", String(63), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("notice", LargeBinary, nullable=False),
    Column("taken_at_s", BigInteger, nullable=False),
    Column("objection", Text, nullable=False, server_default=""),
)

# What this board tells everybody through the relay; published when the relay acknowledged it.
notices_out = Table(
    "notices_out",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(20), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("notice", LargeBinary, nullable=False),
    Column("made_at_s", BigInteger, nullable=False),
    Column("published_at_s", BigInteger, nullable=True, index=True),
    Column("refusal", String(20), nullable=False),
)

# Notices of others that do not verify: seen and put away, with the reason.
refused_notices = Table(
    "refused_notices",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_s", BigInteger, nullable=False),
)

# Notices that came while no roster was in force: judged again when one is.
waiting_notices = Table(
    "waiting_notices",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("notice", LargeBinary, nullable=False),
)

# How far the relay was read: `notices`, or `reports/STUDY`.
positions = Table(
    "positions",
    metadata,
    Column("stream", String(80), primary_key=True),
    Column("position", BigInteger, nullable=False),
)
