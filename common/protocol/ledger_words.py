"""What both command lines print about an exported ledger that verified."""

from __future__ import annotations

from dataclasses import asdict

from common.clock import utc_text
from common.command_line import print_json
from common.privacy import statements
from common.protocol.ledger_export import LedgerExport


def print_verified(export: LedgerExport, *, is_key_known: bool, json: bool) -> None:
    """Print who signed, what the chain holds, and epsilon computed anew from its entries.

    Args:
        export: verified.
        is_key_known: whether L3 compared the key with one that the reader holds.
        json: print one JSON document instead of words.
    """
    studies = statements.by_study(export.entries, delta=export.delta_total)
    total = statements.total(
        export.entries,
        delta=export.delta_total,
        epsilon_total=export.epsilon_total,
        composition=export.composition,
    )
    if json:
        print_json(
            {
                "ok": True,
                "site_id": export.site_id,
                "fingerprint": export.verify_key.fingerprint,
                "is_key_known": is_key_known,
                "exported_at": utc_text(export.exported_at_s),
                "entries": len(export.entries),
                "head": export.head,
                "epsilon_total": export.epsilon_total,
                "total": asdict(total),
                "studies": [asdict(item) for item in studies],
            }
        )
        return
    print(
        f"The ledger of {export.site_id}, exported {utc_text(export.exported_at_s)}: "
        f"{len(export.entries)} entries are an unbroken chain, signed by the key in the file."
    )
    whose = "It is the key you expect" if is_key_known else "Compare it with the site by telephone"
    print(f"{whose}:\n  {export.verify_key.fingerprint}")
    for item in studies:
        print(
            f"  {item.study_id}: promised epsilon {item.epsilon_committed:.4f}, used "
            f"{item.epsilon_spent:.4f} at delta {item.delta:g}, {item.releases} release(s)"
        )
    print(
        f"All studies together: epsilon {total.epsilon_committed:.4f} of "
        f"{export.epsilon_total:g} at delta {total.delta:g} is promised; "
        f"{total.epsilon_spent:.4f} is used so far."
    )
