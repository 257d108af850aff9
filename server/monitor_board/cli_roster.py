"""`cohortium-board roster …`: the ceremony in which the consortium's authority names everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json
from server.monitor_board.cli_context import Json, open_config, open_database

app = typer.Typer(
    help="Who takes part in monitoring, as the consortium's authority signs it.",
    no_args_is_help=True,
)

Draft = Annotated[Path, typer.Argument(help="A draft of a roster.")]
Member = Annotated[str, typer.Argument(help="site/ID, board/ID or decider/NAME.")]
Request = Annotated[Path, typer.Argument(help="The site's signed enrolment request.")]


@app.command()
def new(
    context: typer.Context,
    draft: Annotated[Path, typer.Argument(help="The draft to write.")],
    authority: Annotated[
        Path | None, typer.Option(help="The authority's key file, for version 1.")
    ] = None,
    consortium: Annotated[str, typer.Option(help="The consortium's name, for version 1.")] = "",
    after: Annotated[
        Path | None, typer.Option(help="The signed roster before; its members are taken over.")
    ] = None,
    days: Annotated[int, typer.Option(help="How long it is in force.", min=1, max=3660)] = 400,
    grace_days: Annotated[
        int, typer.Option(help="How long reports under it count after the next.", min=0, max=90)
    ] = 14,
    receipts: Annotated[
        int, typer.Option(help="For version 1: boards that must hold a report.", min=1, max=16)
    ] = 1,
    decisions: Annotated[
        int, typer.Option(help="For version 1: deciders who must sign.", min=2, max=16)
    ] = 2,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Which seals count: hybrid (default), x25519; as before with --after."),
    ] = None,
) -> None:
    """Begin a draft: version 1 of a consortium, or the version after another."""
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from common.errors import ConfigError
    from server.monitor_board import rosters
    from server.monitor_board.opening_keys import parse_suite

    now_s = SystemClock().now_s()
    suites = tuple(sorted({parse_suite(item) for item in suite or ()}))
    if after is not None:
        before = rosters.read_file(after)
        roster = rosters.following_roster(before, now_s=now_s, days=days, suites=suites)
    elif authority is not None and consortium:
        key = SigningKey.read(authority).verify_key
        roster = rosters.new_roster(
            consortium,
            key,
            now_s=now_s,
            days=days,
            grace_days=grace_days,
            receipts_required=receipts,
            decisions_required=decisions,
            suites=suites or (parse_suite("hybrid"),),
        )
    else:
        raise ConfigError(
            "a draft cannot begin",
            expected="--after ROSTER, or --consortium NAME with --authority KEY",
            arrived="neither",
            todo="give one of them",
        )
    rosters.write_draft(draft, roster)
    print(f"{draft} is a draft of version {roster.version}; nobody takes it before it is signed.")


@app.command("add-site")
def add_site(context: typer.Context, draft: Draft, request: Request) -> None:
    """Put a site into a draft, by its signed enrolment request."""
    from common.protocol.enrolment import read_request
    from server.monitor_board import rosters

    asked = read_request(request)
    rosters.write_draft(draft, rosters.with_site(rosters.read_file(draft), asked))
    _say_key(f"site {asked.site_id}", asked.verify_key)


@app.command("add-board")
def add_board(
    context: typer.Context,
    draft: Draft,
    card: Annotated[Path, typer.Argument(help="The card that the board made.")],
) -> None:
    """Put a board or aggregator into a draft, by its card."""
    from server.monitor_board import rosters
    from server.monitor_board.cards import read_board_card

    shown = read_board_card(card)
    rosters.write_draft(draft, rosters.with_board(rosters.read_file(draft), shown))
    _say_key(f"{shown.role} {shown.board_id}", shown.verify_key)


@app.command("add-decider")
def add_decider(
    context: typer.Context,
    draft: Draft,
    card: Annotated[Path, typer.Argument(help="The card that the decider made (`decide key`).")],
) -> None:
    """Put a decider into a draft, by his card."""
    from server.monitor_board import rosters
    from server.monitor_board.cards import read_decider_card

    shown = read_decider_card(card)
    rosters.write_draft(draft, rosters.with_decider(rosters.read_file(draft), shown))
    _say_key(f"decider {shown.name}", shown.verify_key)


@app.command()
def rotate(
    context: typer.Context,
    draft: Draft,
    file: Annotated[
        Path, typer.Argument(help="A board's new card, or a site's request with its new key.")
    ],
    countersignature: Annotated[
        str, typer.Option(help="A site's: by its old key over the change, in base64.")
    ] = "",
) -> None:
    """Exchange a board's opening key or a site's signing key in a draft."""
    from common.errors import EnrolmentError
    from common.protocol.enrolment import read_request
    from server.monitor_board import rosters
    from server.monitor_board.cards import read_board_card

    before = rosters.read_file(draft)
    try:
        card = read_board_card(file)
    except EnrolmentError:  # then it is a site's request, or neither
        asked = read_request(file)
        signed = _decoded(countersignature) if countersignature else None
        rosters.write_draft(draft, rosters.with_new_site_key(before, asked, signed))
        _say_key(f"site {asked.site_id}", asked.verify_key)
        return
    rosters.write_draft(draft, rosters.with_board(before, card))
    print(f"Reports are sealed to the new key of {card.board_id} once this version is in force.")


@app.command()
def suspend(context: typer.Context, draft: Draft, member: Member) -> None:
    """Let a site's reports wait; its key may count again."""
    _change(draft, member, "suspended")


@app.command()
def readmit(context: typer.Context, draft: Draft, member: Member) -> None:
    """Let a suspended site take part again."""
    _change(draft, member, "active")


@app.command()
def revoke(context: typer.Context, draft: Draft, member: Member) -> None:
    """Say that a key never counts again: it was lost, or its holder left."""
    _change(draft, member, "revoked")


@app.command()
def sign(
    context: typer.Context,
    draft: Draft,
    authority: Annotated[Path, typer.Option(help="The authority's key file.")],
    out: Annotated[Path, typer.Option(help="The signed roster to write.")],
) -> None:
    """Sign a draft; where the authority's key is, and nowhere else."""
    from common.crypto.keys import SigningKey
    from common.protocol.monitoring.roster_file import sign_roster
    from server.durable_file import write_durably
    from server.monitor_board import rosters

    roster = rosters.read_file(draft)
    rosters.check_deciders(roster)
    write_durably(out, sign_roster(roster, SigningKey.read(authority)))
    print(f"{out} is version {roster.version}, digest\n  {roster.digest}")
    print("Give it to `cohortium-coordinator relay roster`, or `cohortium-board roster publish`.")


@app.command()
def show(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A draft or a signed roster.")],
    json: Json = False,
) -> None:
    """Show a roster with every key's fingerprint."""
    from common.protocol.monitoring.roster import roster_content
    from server.monitor_board import rosters

    roster = rosters.read_file(file)
    if json:
        print_json({**roster_content(roster), "digest": roster.digest})
        return
    from common.clock import utc_text

    print(f"{roster.consortium}, version {roster.version}, digest {roster.digest}")
    print(f"in force {utc_text(roster.not_before_s)} to {utc_text(roster.not_after_s)}")
    print(f"authority      {roster.authority.fingerprint}")
    for site in roster.sites:
        state = f"{site.status.value}, epoch {site.key_epoch}"
        print(f"site {site.site_id}  {site.verify_key.fingerprint}  {state}")
    for board in roster.boards:
        print(f"{board.role.value} {board.board_id}  signs {board.verify_key.fingerprint}")
        print(f"  opens {board.sealing_key.fingerprint}  {board.status.value}")
    for person in roster.deciders:
        print(f"decider {person.name}  {person.verify_key.fingerprint}  {person.status.value}")


@app.command()
def publish(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A signed roster.")],
) -> None:
    """Take a signed roster here and send it to everybody with the next `collect`."""
    from common.clock import SystemClock
    from server.monitor_board import rosters
    from server.monitor_board.notices_out import put_notice
    from server.monitor_board.roster_book import take_roster
    from server.monitor_board.setup import pinned_authority

    _, config = open_config(context)
    data, now_s = rosters.read_bytes(file), SystemClock().now_s()
    with open_database(context).transaction() as connection:
        roster = take_roster(connection, data, authority=pinned_authority(config), now_s=now_s)
        put_notice(connection, data, now_s=now_s)
    print(f"Version {roster.version} is taken here; `collect` sends it to the relay.")


def _decoded(text: str) -> bytes:
    import base64

    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""  # no countersignature of anybody


def _change(draft: Path, member: str, standing: str) -> None:
    from common.protocol.monitoring.roster import Standing
    from server.monitor_board import rosters

    changed = rosters.with_standing(rosters.read_file(draft), member, Standing(standing))
    rosters.write_draft(draft, changed)
    print(f"{member} is {standing} in {draft}.")


def _say_key(who: str, key_text: str) -> None:
    from common.crypto.keys import VerifyKey

    print(f"{who} is in the draft; compare its fingerprint on the telephone:")
    print(f"  {VerifyKey.from_text(key_text).fingerprint}")
