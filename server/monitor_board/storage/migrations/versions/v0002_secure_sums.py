"""Tables of secure sums: receipts of shares, closings, the aggregators' answers, the sums."""

from alembic import op

from server.monitor_board.storage import sum_tables

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    for table in (
        sum_tables.share_receipts,
        sum_tables.closings,
        sum_tables.partial_sums,
        sum_tables.check_keys,
        sum_tables.sums,
    ):
        table.create(op.get_bind())
