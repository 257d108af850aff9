"""`cohortium-board decide …`: what the board's persons decide, each with an own key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import print_json
from server.monitor_board.cli_context import Json, open_database, open_store

if TYPE_CHECKING:
    from common.protocol.monitoring.roster import MonitoringRoster

app = typer.Typer(
    help="Decisions: two signatures of different deciders make one.", no_args_is_help=True
)

KeyFile = Annotated[Path, typer.Option(help="The decider's own key file.")]
DecisionFile = Annotated[Path, typer.Argument(help="A decision with the signatures so far.")]
RosterFile = Annotated[
    Path | None, typer.Option(help="The newest roster; on a machine without a board's folder.")
]


@app.command()
def key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="How the decider signs: a short slug.")],
    out: Annotated[Path, typer.Option(help="The key file to write; it stays with the person.")],
    card: Annotated[Path, typer.Option(help="The card to write, for the roster's authority.")],
) -> None:
    """Make a decider's key and card."""
    from common.crypto.keys import SigningKey
    from common.ids import parse_board_id
    from server.monitor_board.cards import write_decider_card

    parse_board_id(name)
    made = SigningKey.generate()
    made.write(out)
    write_decider_card(card, name=name, key=made)
    print(f"Send {card} to the authority, and read it on the telephone:\n  {made.fingerprint}")


@app.command()
def propose(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="The study's id.")],
    action: Annotated[
        str,
        typer.Argument(
            help="continue, watch, retrain, recalibrate, roll-back, pause-site or stop."
        ),
    ],
    key: KeyFile,
    reason: Annotated[str, typer.Option(help="Why; everybody in the consortium reads it.")],
    period: Annotated[str, typer.Option(help="Whose reports led to it, such as 2026-02.")],
    out: Annotated[Path, typer.Option(help="The file to write, for the next decider.")],
    site: Annotated[str, typer.Option(help="With pause-site: which site.")] = "",
    model: Annotated[str, typer.Option(help="With roll-back: the version to go back to.")] = "",
) -> None:
    """Propose a decision: write it with your own signature to a file."""
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from common.ids import parse_digest, parse_site_id, parse_study_id
    from server.durable_file import write_durably
    from server.monitor_board import decisions

    store, decider = open_store(context), SigningKey.read(key)
    study_id = parse_study_id(study)
    roster = store.rosters().in_force(SystemClock().now_s())
    data = decisions.propose(
        consortium=roster.consortium,
        study_id=study_id,
        action=decisions.parse_action(action),
        reason=reason,
        period=period,
        site_id=parse_site_id(site) if site else None,
        model_version=parse_digest(model) if model else None,
        held=store.decisions(study_id),
        now_s=SystemClock().now_s(),
        name=decisions.name_of(decider, roster),
        key=decider,
    )
    write_durably(out, data)
    wanted = roster.decisions_required - 1
    print(f"{out} needs {wanted} more signature(s): `cohortium-board decide sign {out}`.")


@app.command()
def sign(
    context: typer.Context, file: DecisionFile, key: KeyFile, roster: RosterFile = None
) -> None:
    """Add a signature to a decision; read it first with `decide show`."""
    from common.crypto.keys import SigningKey
    from server.durable_file import write_durably
    from server.monitor_board import decisions, rosters

    known, decider = _roster(context, roster), SigningKey.read(key)
    data = decisions.sign(
        rosters.read_bytes(file), name=decisions.name_of(decider, known), key=decider
    )
    write_durably(file, data)
    signers = decisions.read_proposal(data, known).signers
    print(f"{file} is signed by {', '.join(signers)}; {known.decisions_required} are needed.")


@app.command()
def show(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="A decision's file; the kept decisions without.")
    ] = None,
    roster: RosterFile = None,
    json: Json = False,
) -> None:
    """Show a file, or the decisions that were taken."""
    from server.monitor_board import decisions, rosters

    if file is not None:
        proposal = decisions.read_proposal(rosters.read_bytes(file), _roster(context, roster))
        rows = [
            decisions.words(proposal.decision, signers=proposal.signers, others=proposal.others)
        ]
    else:
        store = open_store(context)
        rows = [
            decisions.words(item.decision, signers=item.signers) | {"not valid": item.objection}
            for study_id in store.plans()
            for item in store.decisions(study_id)
        ]
    if json:
        print_json(rows)
        return
    for row in rows:
        for name, value in row.items():
            print(f"{name:16}{value}")
        print()


@app.command()
def publish(context: typer.Context, file: DecisionFile) -> None:
    """Verify a decision and send it with the next `collect`; it counts when the relay has it."""
    from common.clock import SystemClock
    from common.protocol.monitoring.notice_checks import verify_decision
    from server.monitor_board import rosters
    from server.monitor_board.decision_book import check_follows
    from server.monitor_board.notices_out import put_notice
    from server.monitor_board.roster_book import read_book

    data, now_s = rosters.read_bytes(file), SystemClock().now_s()
    with open_database(context).transaction() as connection:
        roster = read_book(connection).in_force(now_s)
        decision = verify_decision(data, roster)
        check_follows(connection, decision, roster.consortium)
        put_notice(connection, data, now_s=now_s)
    print(f"Decision {decision.number} of {decision.study_id} waits here; `collect` sends it.")


def _roster(context: typer.Context, file: Path | None) -> MonitoringRoster:
    from common.clock import SystemClock
    from server.monitor_board import rosters

    if file is not None:
        return rosters.read_file(file)
    return open_store(context).rosters().in_force(SystemClock().now_s())
