"""The board's tables of secure sums, in the same metadata as its others."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, LargeBinary, String, Table, Text

from server.monitor_board.storage.tables import metadata

# Which shares their aggregators opened, by their receipts.
share_receipts = Table(
    "share_receipts",
    metadata,
    Column("share", String(64), primary_key=True),
    Column("aggregator", String(63), primary_key=True),
)

# Closings of this board and of others; of one sum those that aggregators may answer.
closings = Table(
    "closings",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("study_id", String(63), nullable=False),
    Column("period", String(16), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("notice", LargeBinary, nullable=False),
)

partial_sums = Table(
    "partial_sums",
    metadata,
    Column("closing", String(64), primary_key=True),
    Column("aggregator", String(63), primary_key=True),
    Column("notice", LargeBinary, nullable=False),
    Column("taken_at_s", BigInteger, nullable=False),
)

# The check key as the authority sealed it; the key itself is opened when a sum is joined.
check_keys = Table(
    "check_keys",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("notice", LargeBinary, nullable=False),
)

# One row for each sum that was joined, or was refused with a number.
sums = Table(
    "sums",
    metadata,
    Column("study_id", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("closing", String(64), nullable=False, unique=True),
    Column("refusal", String(8), nullable=False),
    Column("words", Text, nullable=False),
    # int64, little-endian, tensor after tensor as in the plan; empty when it was refused
    Column("counts", LargeBinary, nullable=False),
    Column("epsilon_spent", Float, nullable=False),
    Column("epsilon_remaining", Float, nullable=False),
    Column("delta", Float, nullable=False),
    Column("joined_at_s", BigInteger, nullable=False),
)
