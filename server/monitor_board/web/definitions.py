"""What each chart and measure means, in words that a hospital's board reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.monitor_board.signal_types import Metric

DEFINITIONS: Final[Mapping[str, str]] = {
    "states": (
        "OK: nothing is to be seen. WATCH: a change is significant after correction for how many "
        "tests there are. ALERT: the evidence has added up over the periods, and the change is "
        "larger than the plan tolerates. SILENT: a report is overdue. TOO FEW: the privacy noise "
        "and the number of patients allow no statement; it does not mean that all is well."
    ),
    "signals": (
        "Change: of the newest report from the pooled past; of the outcome rate in logits, of a "
        "gap how far it lies beyond the tolerance. p-value: that nothing changed, for "
        "this report alone. Evidence: what has added up over the periods, as a share of the alarm."
    ),
    "reliability": (
        "Patients are put into bins by predicted risk. Each point is one bin: the mean predicted "
        "risk against the share who had the outcome. Bars are 95 % intervals and include the "
        "privacy noise. Bins with too few patients are left out here and named in the table."
    ),
    "roc": (
        "For each edge of the score bins: the share of patients with the outcome who are at or "
        "above it, against the share of those without the outcome."
    ),
    "forest": (
        "One line for each gap: its estimate and 95 % interval; the shaded band is "
        "the plan's tolerance. A circle is OK, a diamond WATCH, a triangle ALERT. Where there is "
        "too little data no number is shown."
    ),
    "fairness_gap": (
        "Each gap is a group's rate minus that of all other patients, at the plan's threshold. "
        "p-values are corrected by Holm's method for the levels of a group. Some gaps are shown "
        "and not tested: groups of unlike risk should have unlike alert rates. A gap says that "
        "groups differ, not why."
    ),
    "worst_group": (
        "Over the levels with enough data, without a test: of many equal levels one is always "
        "worst, and two always differ. What differs for sure is among the gaps above."
    ),
    "epsilon": (
        "ε bounds how much any one patient can change the chance of anything a site reports; it "
        "adds up over reports, here as the site's own accountant composes it. What is left is "
        "left of the commitment that the site made for the whole plan."
    ),
    "protocol": (
        "A site's reports are numbered and each names the digest of the one before, so that a "
        "lost, held back or forked report is seen. A site is silent when a report is overdue."
    ),
    "decisions": (
        "A decision is in force when two deciders have signed the same record. This page shows "
        "them; they are made with `cohortium-board decide`."
    ),
    "patients, noisy": "Number of patients in the report, with its noise.",
    "patients with the outcome, noisy": "Number of patients with the outcome, with its noise.",
    "AUROC": "Chance that a patient with the outcome has a higher predicted risk than one without.",
    "Brier score": "Mean squared difference between predicted risk and outcome; 0 is perfect.",
    "expected calibration error (ECE)": (
        "Mean over patients of the distance between their bin's observed share and predicted risk, "
        "corrected for what chance and noise add; 0 is perfect."
    ),
    "calibration intercept": "Shift of the risk's logit that sets the mean right; 0 is perfect.",
    "calibration slope": "Slope of the outcome on the risk's logit; below 1: too extreme.",
    "observed / expected": "Patients with the outcome over the sum of predicted risks.",
    "outcome rate": "Share of patients with the outcome.",
    "alert rate": "Share of patients at or above the plan's threshold.",
    "sensitivity": "Share of patients with the outcome who are at or above the threshold.",
    "specificity": "Share of patients without the outcome who are below the threshold.",
    "positive predictive value": "Share of patients at or above the threshold with the outcome.",
    "negative predictive value": "Share of patients below the threshold without the outcome.",
    "net benefit": "True positives less false positives at the threshold's odds, per patient.",
    "demographic parity": "Gap in the alert rate.",
    "equal opportunity": "Gap in sensitivity.",
    "equalized odds (false positives)": "Gap in the false positive rate.",
    "predictive parity": "Gap in the positive predictive value.",
    "calibration by group": "Gap in the share of events less the mean predicted risk.",
    "discrimination by group": "Gap in AUROC.",
}

METRIC_DEFINITIONS: Final[Mapping[Metric, str]] = {
    Metric.SENTINEL: (
        "How far the distribution moved from the pooled past: Wasserstein distance in deviations "
        "of the reference; for unordered levels, half the sum of differences in shares. What "
        "chance and noise add is taken off."
    ),
    Metric.MISSING: "Share of patients without a value of the sentinel.",
    Metric.SCORES: (
        "How far the distribution of predicted risks moved from the pooled past: Wasserstein "
        "distance in deviations of the reference."
    ),
    Metric.PREVALENCE: "Share of patients with the outcome.",
    Metric.AUROC: (
        "Chance that a patient with the outcome has a higher predicted risk than one without; "
        "two patients of one score bin count as half."
    ),
    Metric.CALIBRATION_SLOPE: (
        "Slope of the outcome on the logit of the predicted risk; 1 is perfect, below 1 the risks "
        "are too extreme."
    ),
    Metric.CALIBRATION_INTERCEPT: (
        "What must be added to the logit of the predicted risk so that as many events are "
        "predicted as happened; 0 is perfect."
    ),
    Metric.SENSITIVITY_GAP: "Equal opportunity: the group's sensitivity minus all others'.",
    Metric.FALSE_POSITIVE_GAP: (
        "Equalized odds, second part: the group's false positive rate minus all others'."
    ),
    Metric.PREDICTIVE_VALUE_GAP: (
        "Predictive parity: the group's positive predictive value minus all others'."
    ),
    Metric.EXCESS_RISK_GAP: (
        "Calibration by group: share of events less mean predicted risk, minus all others'."
    ),
}
PERFORMANCE_TITLES: Final[Mapping[str, str]] = {
    "patients": "patients, noisy",
    "events": "patients with the outcome, noisy",
    "auroc": "AUROC",
    "brier": "Brier score",
    "calibration_error": "expected calibration error (ECE)",
    "calibration_intercept": "calibration intercept",
    "calibration_slope": "calibration slope",
    "observed_to_expected": "observed / expected",
    "prevalence": "outcome rate",
    "alert_rate": "alert rate",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "net_benefit": "net benefit",
}
CRITERION_TITLES: Final[Mapping[str, str]] = {
    "alert_rate": "demographic parity",
    "sensitivity": "equal opportunity",
    "false_positive_rate": "equalized odds (false positives)",
    "ppv": "predictive parity",
    "excess_risk": "calibration by group",
    "auroc": "discrimination by group",
}
"""Titles of measures, which are also the keys of their definitions."""

WORST_TITLES: Final[Mapping[str, str]] = {
    "alert_rate": "highest alert rate",
    "sensitivity": "lowest sensitivity",
    "false_positive_rate": "highest false positive rate",
    "ppv": "lowest positive predictive value",
    "excess_risk": "excess risk farthest from 0",
    "auroc": "lowest AUROC",
}
