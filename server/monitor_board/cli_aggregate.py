"""`cohortium-board aggregate`: add shares of a secure sum as one of the two aggregators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import print_json
from server.monitor_board.cli_context import Json, open_config

if TYPE_CHECKING:
    from common.errors import CohortiumError
    from server.monitor_board.aggregator import Step


def aggregate(
    context: typer.Context,
    watch: Annotated[
        bool,
        typer.Option("--watch/--once", help="Go on, a step every `poll_s` seconds, or do one."),
    ] = False,
    json: Json = False,
) -> None:
    """Open shares, answer closings once each, publish partial sums; for an aggregator's folder."""
    from common.clock import SystemClock
    from server.monitor_board import aggregator_service as service

    paths, config = open_config(context)
    with service.open_aggregator(paths, config, clock=SystemClock()) as step:
        if watch:
            service.watch(
                step,
                every_s=config.poll_s,
                say=lambda done: _say(done, json=json),
                complain=_complain,
            )
        _say(step(), json=json)


def _complain(error: CohortiumError) -> None:
    number = f"{error.number} " if error.number else ""
    print(f"{number}{error.refused}: {error.arrived}; trying again", flush=True)


def _say(step: Step, *, json: bool) -> None:
    refused = [(item.digest[:12], item.error.number, item.error.refused) for item in step.refused]
    if json:
        print_json(
            {
                "acknowledged": step.acknowledged,
                "answered": step.answered,
                "refused": [
                    {"digest": digest, "number": number, "words": words}
                    for digest, number, words in refused
                ],
            }
        )
        return
    print(f"{step.acknowledged} share(s) opened, {step.answered} closing(s) answered.")
    for digest, number, words in refused:
        print(f"  {number}: {words} ({digest})")
