"""What each chart and measure means, in words that a hospital's board reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DEFINITIONS: Final[Mapping[str, str]] = {
    "states": (
        "OK: nothing is to be seen. WATCH: a change is significant after correction for how many "
        "tests there are. ALERT: the evidence has added up over the periods, and the change is "
        "larger than the plan tolerates. TOO FEW: the privacy noise and the number of patients "
        "allow no statement; it does not mean that all is well."
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
        "One line for each gap: its estimate and simultaneous 95 % interval; the shaded band is "
        "the plan's tolerance. A circle is OK, a diamond WATCH, a triangle ALERT. Where there is "
        "too little data no number is shown."
    ),
    "fairness_gap": (
        "Each gap is a group's rate minus that of all other patients, at the plan's threshold. "
        "p-values are corrected by Holm's method. A gap says that groups differ, not why."
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
    "data": "Missing values or units jumped: likely a data feed at the site; look there first.",
    "covariate": "The patients or their values differ from before; the model may still be right.",
    "prior": "The outcome is more or less frequent than before; the intercept may need correction.",
    "concept": "The model discriminates or is calibrated worse than before: retraining is due.",
    "fairness": "A gap between groups is larger than the plan tolerates.",
    "silent": "A report is overdue or missing.",
}
