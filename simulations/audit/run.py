"""Run the whole audit of one plan: shadow studies, checks, report."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_digest
from simulations.audit import accounting_check as accounting
from simulations.audit import contribution_check as contribution
from simulations.audit import noise_check as noise
from simulations.audit import sampling_check as sampling
from simulations.audit.evidence import StudyEvidence
from simulations.audit.one_run import audit_guesses
from simulations.audit.report import AuditReport, Check
from simulations.audit.shadow import AuditedParts, ShadowSize, run_studies, study_sizes
from simulations.one_thread import one_thread


def run_audit(
    plan: StudyPlan,
    size: ShadowSize,
    *,
    parts: AuditedParts | None = None,
    seed: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AuditReport:
    """Return the audit's report.

    Args:
        plan: under audit.
        size: how much is simulated.
        parts: under audit; the product's own when not given.
        seed: of patients, canaries and models; new ones each time when not given. Noise and
            sampling come from `parts.randomness` in any case.
        progress: is told how many of all shadow studies are done.
    """
    begun = time.monotonic()
    parts = parts or AuditedParts()
    rng = np.random.default_rng(seed)
    total = len(study_sizes(plan, size.canaries)) + 1
    studies: list[StudyEvidence] = []
    progress(0, total)
    with one_thread():
        for study in run_studies(plan, size, parts, rng):
            studies.append(study)
            progress(len(studies), total)
        shares = contribution.check_contributions(plan, parts.choose_sum, rng)
    claimed = parts.claim(plan, studies[0].records)
    one_run = audit_guesses(
        np.concatenate([study.scores for study in studies]),
        np.concatenate([study.canaries.is_included for study in studies]),
        delta=plan.privacy.delta,
    )
    checks: tuple[Check, ...] = (
        noise.check_deviation(studies),
        noise.check_shape(studies),
        noise.check_independence(studies),
        sampling.check_batch_sizes(studies, rng),
        sampling.check_patient_counts(studies, rng),
        sampling.check_pairs(studies),
        *shares,
        contribution.check_batches(studies),
        accounting.check_steps(studies),
        accounting.check_records(studies),
        accounting.check_updates(studies),
        accounting.check_claim(plan, studies, claimed),
        accounting.check_one_run(one_run, claimed),
    )
    return AuditReport(
        study_id=plan.study.id,
        plan_digest=plan_digest(plan),
        epsilon=claimed,
        delta=plan.privacy.delta,
        rounds=size.rounds,
        studies=len(studies),
        steps=sum(sum(study.noised_steps) for study in studies),
        patients=size.patients,
        one_run=one_run,
        checks=checks,
        seconds=time.monotonic() - begun,
    )
