"""The report of a run: what was run, what federation bought, who pays, what may be concluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from common.privacy.unit import UNIT_SENTENCE
from simulations.baselines import ALL_SITES, FEDERATED, WORDS
from simulations.exact_performance import Estimate
from simulations.report_page import Facts, Part, Picture, Report, Section, Words
from simulations.who_pays import who_pays

if TYPE_CHECKING:
    from simulations.run import StudyRun

_ROWS_MAX: Final = 200
"""Sites whose rows the report shows; the tables in the folder have all of them."""
_QUESTIONS: Final = {
    "alone_private": (
        "Against each site alone with the same promise to its patients, federation",
        "raises the AUROC by {much}, mean of sites",
        "lowers the AUROC by {much}, mean of sites",
    ),
    "alone": (
        "Against each site alone without any noise, the private federation",
        "has an AUROC higher by {much}, mean of sites: joining is worth its noise",
        "has an AUROC lower by {much}, mean of sites: the noise costs more than joining gives",
    ),
    "federated_no_noise": (
        "Against the same federation without noise, the promise to patients",
        "costs nothing: the AUROC is even higher by {much}",
        "costs {much} of AUROC, mean of sites",
    ),
    "pooled_private": (
        "Against all patients in one place with the same promise, leaving data where they are",
        "costs nothing: the AUROC is even higher by {much}",
        "costs {much} of AUROC, mean of sites (each site adds noise of its own)",
    ),
    "pooled": (
        "Against all patients in one place without any noise, the private federation",
        "is no worse: its AUROC is even higher by {much}",
        "is behind by {much} of AUROC, mean of sites",
    ),
    "leave_one_site_out": (
        "Against a federation that a site has not joined, at that site, joining",
        "raises the AUROC by {much}, mean of the sites left out",
        "lowers the AUROC by {much}, mean of the sites left out",
    ),
}


def report_of(study_run: StudyRun) -> Report:
    """Return the report of a finished run."""
    return Report(
        title=f"Simulated study: {study_run.plan.study.title}",
        sections=[
            Section("How to read this", list(_reading(study_run))),
            Section("What was run", list(_what_was_run(study_run))),
            Section("What federation bought", list(_bought(study_run))),
            Section("Each site", list(_sites(study_run))),
            Section("Groups of patients", list(_groups(study_run))),
            Section("Calibration", list(_calibration(study_run))),
            Section("Learning, round by round", list(_learning(study_run))),
            Section("Rounds, privacy spent and traffic", list(_rounds(study_run))),
            Section("What a reader may conclude", list(_conclusions(study_run))),
            Section("How to make it again", list(_again(study_run))),
        ],
    )


def estimate(row: Any, name: str) -> Estimate | None:
    """Return a figure of a row with its interval, None where there is none."""
    if pd.isna(row[name]):
        return None
    return Estimate(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]))


def conclusion(baseline: str, difference: Estimate) -> str:
    """Return what a difference (federation minus baseline) says, and what it does not."""
    subject, better, worse = _QUESTIONS[baseline]
    interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
    if difference.low <= 0 <= difference.high:
        return (
            f"{subject}: these held-out patients cannot tell (difference in AUROC "
            f"{difference.value:+.3f}, 95 % interval {interval})."
        )
    words = better if difference.value > 0 else worse
    much = f"{abs(difference.value):.3f} (95 % interval of the difference {interval})"
    return f"{subject} {words.format(much=much)}."


def _reading(study_run: StudyRun) -> Iterator[Part]:
    yield Words(
        "A real study could not show this. The figures below are exact: they were computed by "
        "looking at the held-out patients of each virtual site, which no party of a real study "
        "can. They carry no privacy noise and are not differentially private releases. If the "
        "patients are real, keep this folder like their data.",
        is_warning=True,
    )
    yield Words(
        "The study itself took the product's own path: coordinator, site agents, gate, ledger, "
        "sealed envelopes and noise are those of a real study; only the network is not there. Its "
        "randomness is a function of the seed so that the run can be made again; for the same "
        "reason its noise protects nobody."
    )


def _what_was_run(study_run: StudyRun) -> Iterator[Part]:
    plan, record = study_run.plan, study_run.record
    training, sites = plan.training, study_run.sites
    yield Words(plan.study.purpose)
    yield Facts(
        "The study",
        ("", "value"),
        [
            ("study", plan.study.id),
            ("plan digest", record["plan_digest"]),
            ("model", plan.model.kind.replace("_", " ")),
            ("strategy", f"{training.strategy.kind}, {training.rounds} rounds of "
                         f"{training.local_steps} local steps"),
            ("promise to each patient", f"epsilon {plan.privacy.epsilon:g}, delta "
                                        f"{plan.privacy.delta:g} over the whole study"),
            ("sites", f"{len(sites)}, divided {record['divided']}"),
            ("patients", f"{sites.patients_trained.sum():,} train, "
                         f"{sites.patients_held_out.sum():,} are held out"),
            ("seed", str(study_run.seed)),
        ],
    )  # fmt: skip
    yield Words(UNIT_SENTENCE)
    for words in record["left_out"]:
        yield Words(f"Left out: {words}.")


def _bought(study_run: StudyRun) -> Iterator[Part]:
    rows = study_run.baselines
    whole = rows[rows.site_id == ALL_SITES]
    if len(whole) < 2:
        yield Words("No baselines were trained, so this run cannot say what federation bought.")
        return
    yield Words(
        "Each baseline trains the same model for the same rounds and steps from the same start, "
        "and is scored on the same held-out patients; what differs is who trains together and "
        "whether noise is added. Without noise means that each patient's gradient is still clipped "
        "as the plan says. AUROC is the mean of the sites' own; intervals are of the patients' "
        "sampling (DeLong), not of the luck of one seed."
    )
    yield Picture(
        "bought",
        "What federation bought: its AUROC minus each baseline's, mean of sites",
        "One line for each baseline with the mean difference in AUROC and its 95 % interval; the "
        "table below has the numbers.",
    )
    yield Facts(
        "The federation beside its baselines",
        ("trained", "sites scored", "AUROC, mean of sites", "Brier", "calibration slope",
         "federation minus this", "seconds"),
        [
            (
                "the federation, as the plan says" if row.baseline == FEDERATED
                else WORDS[row.baseline],
                str(int((rows.baseline == row.baseline).sum()) - 1),
                _text(estimate(row, "auroc")),
                _text(estimate(row, "brier")),
                _text(estimate(row, "calibration_slope"), digits=2),
                _text(estimate(row, "federated_minus"), signed=True),
                _seconds(study_run, row.baseline),
            )
            for _, row in whole.iterrows()
        ],
    )  # fmt: skip


def _sites(study_run: StudyRun) -> Iterator[Part]:
    rows = study_run.baselines
    yield Picture(
        "sites",
        "Each site's AUROC with the federation's model, beside other ways to train",
        "One line for each site; the table below has the numbers.",
    )
    alone = _by_site(rows, "alone_private")
    no_noise = _by_site(rows, "federated_no_noise")
    shown = study_run.sites.sort_values("site_id").head(_ROWS_MAX)
    yield Facts(
        "Sites, with the final model",
        ("site", "patients train / held out", "with the outcome", "AUROC", "Brier",
         "calibration slope", "alone, with privacy", "without noise", "epsilon spent", "refusals"),
        [
            (
                row.site_id,
                f"{row.patients_trained} / {row.patients_held_out}",
                str(row.events_held_out),
                _text(estimate(row, "auroc")),
                _text(estimate(row, "brier")),
                _text(estimate(row, "calibration_slope"), digits=2),
                _number(alone.get(row.site_id)),
                _number(no_noise.get(row.site_id)),
                _number(row.epsilon_spent),
                str(row.refusals),
            )
            for _, row in shown.iterrows()
        ],
    )  # fmt: skip
    if len(study_run.sites) > _ROWS_MAX:
        yield Words(f"{len(study_run.sites) - _ROWS_MAX} more sites are in sites.json.")
    yield from who_pays(study_run.baselines)


def _groups(study_run: StudyRun) -> Iterator[Part]:
    if study_run.groups.empty:
        yield Words("The plan names no fairness groups.")
        return
    if study_run.groups.auroc.notna().any():
        yield Picture(
            "groups",
            "AUROC of each group, held-out patients of all sites together",
            "One line for each group with its 95 % interval; the table below has the numbers.",
        )
    yield Facts(
        "Groups, with the final model, over all sites",
        ("group", "patients", "with the outcome", "AUROC", "Brier", "calibration slope"),
        [
            (
                row.group,
                f"{row.patients:,}",
                f"{row.events:,}",
                _text(estimate(row, "auroc")),
                _text(estimate(row, "brier")),
                _text(estimate(row, "calibration_slope"), digits=2),
            )
            for _, row in study_run.groups.iterrows()
        ],
    )


def _calibration(study_run: StudyRun) -> Iterator[Part]:
    if len(study_run.calibration) >= 2:
        yield Picture(
            "calibration",
            "Observed against predicted risk, tenths of all held-out patients",
            "A point for each tenth of the patients; the table below has the numbers.",
        )
    yield Facts(
        "Predicted and observed risk",
        ("tenth", "patients", "predicted", "observed"),
        [
            (str(place), f"{row.patients:.0f}", f"{row.predicted:.3f}", f"{row.observed:.3f}")
            for place, (_, row) in enumerate(study_run.calibration.iterrows(), start=1)
        ],
    )


def _learning(study_run: StudyRun) -> Iterator[Part]:
    rows = study_run.learning
    if rows.auroc.notna().sum() >= 2:
        yield Picture(
            "learning",
            "AUROC of the model after each training round, mean of sites",
            "A line with its 95 % interval; the table below has the numbers.",
        )
    yield Words(
        "No party of a real study sees this curve. Whoever chooses the number of rounds by it has "
        "chosen by the held-out patients, and each release of a real study's evaluation is paid "
        "for from epsilon."
    )
    yield Facts(
        "The model after each training round",
        ("round", "AUROC, mean of sites", "Brier", "calibration slope"),
        [
            (
                str(int(row["round"])),
                _text(estimate(row, "auroc")),
                _text(estimate(row, "brier")),
                _text(estimate(row, "calibration_slope"), digits=2),
            )
            for _, row in rows.iterrows()
        ],
    )


def _rounds(study_run: StudyRun) -> Iterator[Part]:
    rows = study_run.rounds
    yield Picture(
        "participation",
        "Sites accepted, refused or missing in each round",
        "A bar for each round; the table below has the numbers.",
    )
    if rows.bytes_down.sum() + rows.bytes_up.sum() > 0:
        yield Picture(
            "communication",
            "Megabytes sent until each round, envelopes whole",
            "Two rising lines, to the sites and from them; the table below has the numbers.",
        )
    yield Facts(
        "Rounds",
        ("round", "phase", "accepted", "refused", "missing", "bytes to sites",
         "bytes from sites", "most epsilon spent"),
        [
            (
                str(number),
                part.phase.iloc[0],
                str((part.outcome == "accepted").sum()),
                str(part.outcome.str.startswith("refused").sum()),
                str((part.outcome == "missing").sum()),
                f"{part.bytes_down.sum():,}",
                f"{part.bytes_up.sum():,}",
                _number(part.epsilon_spent.max()),
            )
            for number, part in rows.groupby("round")
        ],
    )  # fmt: skip
    refused = rows[rows.outcome != "accepted"]
    if len(refused):
        reasons = Counter(zip(refused.outcome, refused.reason, strict=True))
        told = "; ".join(f"{count} {what} {why}" for (what, why), count in reasons.items())
        yield Words(f"Not accepted: {told}. docs/error-codes.md says what each number means.")


def _conclusions(study_run: StudyRun) -> Iterator[Part]:
    rows = study_run.baselines[study_run.baselines.site_id == ALL_SITES]
    for _, row in rows.iterrows():
        found = estimate(row, "federated_minus")
        if row.baseline in _QUESTIONS and found is not None:
            yield Words(conclusion(row.baseline, found))
    yield Words(
        "This holds for these patients, this division into sites and this one seed. How much other "
        "draws of the noise would change it, only other seeds can tell (`cohortium-sim sweep`). "
        "Hospitals differ in more than a partition of one data set shows: codes, units, missing "
        "values and care. Invented patients say whether noise drowns a signal of the stated "
        "strength, not what this question will reach with real ones."
    )


def _again(study_run: StudyRun) -> Iterator[Part]:
    record = study_run.record
    seconds = record["seconds"]
    yield Words(
        f"The study took {seconds['study']:.1f} s, the baselines {seconds['baselines']:.1f} s. The "
        "folder holds the plan (plan.toml), seed, settings, software and the fingerprint of each "
        "site's features (run.json), every number of this report as Parquet and JSON, the figures "
        "as PNG and SVG, and the model (model.safetensors)."
    )
    yield Facts("Software", ("name", "version"), sorted(record["software"].items()))


def _by_site(rows: pd.DataFrame, baseline: str) -> dict[str, float]:
    own = rows[rows.baseline == baseline]
    return dict(zip(own.site_id, own.auroc, strict=True))


def _text(found: Estimate | None, *, digits: int = 3, signed: bool = False) -> str:
    if found is None:
        return "–"
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _number(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.3f}"


def _seconds(study_run: StudyRun, baseline: str) -> str:
    seconds = study_run.record["seconds"]
    if baseline == FEDERATED:
        return f"{seconds['study']:.1f}"
    return f"{seconds['of_baseline'][baseline]:.1f}"
