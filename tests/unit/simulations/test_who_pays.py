"""A site is said to lose only where its patients can tell."""

from __future__ import annotations

import pandas as pd

from simulations.who_pays import who_pays


def table(*rows: tuple[str, str, int, float, float]) -> pd.DataFrame:
    names = ("baseline", "site_id", "events", "federated_minus", "federated_minus_high")
    return pd.DataFrame([dict(zip(names, row, strict=True)) | {"patients": 50} for row in rows])


def test_sites_that_lose_are_named_the_worst_first_with_what_chance_would_name() -> None:
    found = list(
        who_pays(
            table(
                ("federated_no_noise", "north", 20, -0.02, -0.01),
                ("federated_no_noise", "south", 20, -0.05, -0.01),
                ("federated_no_noise", "west", 20, -0.05, 0.01),
                ("federated_no_noise", "all sites", 60, -0.05, -0.01),
            )
        )
    )
    assert len(found) == 1
    assert "2 of 3 sites lose by the noise" in found[0].text
    assert "south (-0.050), north (-0.020)" in found[0].text
    assert "one site in 40 would be named by chance" in found[0].text


def test_a_site_with_a_handful_of_an_outcome_is_not_judged_and_that_is_said() -> None:
    found = list(who_pays(table(("alone", "east", 4, -0.3, -0.1), ("alone", "up", 48, -0.3, -0.1))))
    assert [item.text[:17] for item in found] == ["Of 2 of 2 sites i"]
    assert "east" not in found[0].text
