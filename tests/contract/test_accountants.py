"""Our accountant against dp-accounting's flat composition and Opacus' independent accountants."""

from __future__ import annotations

import random
import warnings
from collections import Counter

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from common.clock import FixedClock
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.accountant import epsilon_by_part, epsilon_of
from common.privacy.calibration import plan_mechanisms
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.privacy.ledger_entry import Commitment
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)
from common.privacy.spending_limits import SpendingLimits
from common.study.plan_file import read_plan
from tests.lib.plans import EXAMPLES

STEPS = [
    (DpSgdSteps(1.0, 0.02, 5000), 1e-6),
    (DpSgdSteps(4.4493, 0.5, 50), 1e-4),
    (DpSgdSteps(2.0, 0.3, 50), 1e-5),
]


def event_of(record: MechanismRecord) -> tuple[dp_event.DpEvent, int]:
    gaussian = dp_event.GaussianDpEvent(record.noise_multiplier)
    if isinstance(record, DpSgdSteps):
        return dp_event.PoissonSampledDpEvent(record.sampling_probability, gaussian), record.steps
    return gaussian, 1


def flat_pld(records: list[MechanismRecord], delta: float, discretization: float) -> float:
    """dp-accounting's PLD over the list as it is: no grouping and no parts."""
    accountant = PLDAccountant(value_discretization_interval=discretization)
    for record in records:
        accountant.compose(*event_of(record))
    return float(accountant.get_epsilon(delta))


def flat_events(records: list[MechanismRecord], delta: float) -> float:
    """dp-accounting's PLD, one event after another on a grid ten times finer than the ledger's."""
    width = 1e-4
    whole = pld.identity(value_discretization_interval=width)
    for record in records:
        sampling = record.sampling_probability if isinstance(record, DpSgdSteps) else 1.0
        times = record.steps if isinstance(record, DpSgdSteps) else 1
        if isinstance(record, DiscreteGaussianCounts):
            times = record.cells_per_patient_max
            event = pld.from_discrete_gaussian_mechanism(
                record.noise_multiplier, value_discretization_interval=width, use_connect_dots=True
            )
        else:
            event = pld.from_gaussian_mechanism(
                record.noise_multiplier,
                sampling_prob=sampling,
                value_discretization_interval=width,
            )
        for _ in range(times):
            whole = whole.compose(event)
    return float(whole.get_epsilon_for_delta(delta))


def random_records(seed: int) -> list[MechanismRecord]:
    source = random.Random(seed)
    kinds: list[MechanismRecord] = [
        DpSgdSteps(source.choice([1.0, 2.5, 4.4493, 8.0]), source.choice([0.02, 0.3, 1.0]), 7),
        DpSgdSteps(source.choice([2.0, 6.0]), source.choice([0.1, 0.5]), source.randint(1, 40)),
        GaussianVector(source.choice([2.0, 5.0, 40.0])),
    ]
    return [source.choice(kinds) for _ in range(source.randint(1, 30))]


@pytest.mark.parametrize("seed", range(8))
def test_never_below_dp_accounting_on_the_flat_list_and_close_to_it(seed: int) -> None:
    records = random_records(seed)
    delta = 10 ** random.Random(seed).uniform(-8, -3)
    ours = epsilon_of(records, delta=delta)
    theirs = flat_pld(records, delta, 1e-4)  # dp-accounting's own default
    assert theirs <= ours <= theirs * 1.002 + 1e-3


def test_never_below_dp_accounting_on_a_long_flat_list() -> None:
    records: list[MechanismRecord] = [DpSgdSteps(4.4493, 0.5, 5), GaussianVector(20.0)] * 30
    ours = epsilon_of(records, delta=1e-5)
    assert flat_pld(records, 1e-5, 1e-4) <= ours <= flat_pld(records, 1e-5, 1e-3) + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_each_group_of_patients_gets_the_flat_list_of_the_records_that_cover_it(seed: int) -> None:
    source = random.Random(100 + seed)
    records: list[MechanismRecord] = []
    for _ in range(6):
        first, stop = sorted(source.sample(range(0, 1_000_001, 50_000), 2))
        part = PatientPart(first, stop)
        records.append(source.choice([DpSgdSteps(3.0, 0.3, 5, part), GaussianVector(4.0, part)]))
    by_part = epsilon_by_part(Counter(records), delta=1e-5)
    for number in range(25_000, 1_000_000, 50_000):  # one patient in each cell of the grid
        covering = [item for item in records if item.part.first <= number < item.part.stop]
        stated = [eps for part, eps in by_part.items() if part.first <= number < part.stop]
        if covering:
            theirs = flat_pld(covering, 1e-5, 1e-4)
            assert len(stated) == 1
            assert theirs <= stated[0] <= theirs * 1.002 + 1e-3
        else:
            assert stated == []
    assert epsilon_of(records, delta=1e-5) == max(by_part.values())


any_record = st.one_of(
    st.builds(
        DpSgdSteps,
        noise_multiplier=st.floats(1.5, 12.0).map(lambda x: round(x, 4)),
        sampling_probability=st.sampled_from([0.05, 0.3, 0.5, 1.0]),
        steps=st.integers(1, 6),
    ),
    st.builds(GaussianVector, noise_multiplier=st.floats(2.0, 40.0).map(lambda x: round(x, 4))),
    st.builds(
        DiscreteGaussianCounts,
        noise_multiplier=st.floats(1.0, 30.0).map(lambda x: round(x, 4)),
        cells_per_patient_max=st.integers(1, 4),
    ),
)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.lists(any_record, min_size=1, max_size=6), st.sampled_from([1e-3, 1e-5, 1e-8]))
def test_the_ledgers_epsilon_is_within_half_a_percent_of_the_flat_list_and_never_below(
    records: list[MechanismRecord], delta: float
) -> None:
    ledger = Ledger(MemoryLedgerStore(), FixedClock())
    limits = SpendingLimits(1e3, delta, 1e3, delta)
    study, plan = StudyId("study"), Digest("a1" * 32)
    ledger.commit(Commitment(study, plan, 99.0, delta, tuple(Counter(records).items())), limits)
    for number, record in enumerate(records):
        ledger.reserve(
            ReleaseId(f"{number:064x}"),
            study_id=study,
            round_number=number,
            mechanisms=(record,),
            limits=limits,
            plan_digest=plan,
        )
    theirs = flat_events(records, delta)
    for ours in (ledger.spent_total(delta).epsilon, ledger.committed(study, delta).epsilon):
        # The absolute term is the rounding of the reference's own hundreds of convolutions.
        assert theirs - 1e-7 <= ours <= 1.005 * theirs + 1e-7


@settings(deadline=None, max_examples=4, derandomize=True)
@given(
    st.lists(
        st.builds(
            DpSgdSteps,
            noise_multiplier=st.sampled_from([1.5, 2.5, 4.4493, 8.0]),
            sampling_probability=st.sampled_from([0.05, 0.3, 0.5]),
            steps=st.integers(5, 60),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([1e-3, 1e-5, 1e-6]),
)
def test_never_below_the_lower_bound_of_opacus_prv(
    records: list[MechanismRecord], delta: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = [
            (item.noise_multiplier, item.sampling_probability, item.steps)
            for item in records
            if isinstance(item, DpSgdSteps)
        ]
        distribution = accountant._get_dprv(eps_error=0.01, delta_error=delta / 1000)
        lower, _, upper = distribution.compute_epsilon(delta, delta / 1000, 0.01)
    ours = epsilon_of(records, delta=delta)
    assert lower <= ours <= upper + 1e-3


@pytest.mark.parametrize(("record", "delta"), STEPS)
def test_opacus_prv_agrees_within_its_error(record: DpSgdSteps, delta: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = [(record.noise_multiplier, record.sampling_probability, record.steps)]
        theirs = accountant.get_epsilon(delta, eps_error=0.01)
    ours = epsilon_of([record], delta=delta)
    assert theirs - 0.02 <= ours <= theirs + 1e-3  # theirs is an upper bound, at most 0.02 wide


@pytest.mark.parametrize(("record", "delta"), STEPS)
def test_both_rdp_accountants_are_looser_but_not_far(record: DpSgdSteps, delta: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.accountants import RDPAccountant

        opacus = RDPAccountant()
        opacus.history = [(record.noise_multiplier, record.sampling_probability, record.steps)]
        opacus_rdp = float(opacus.get_epsilon(delta))
    google = RdpAccountant()
    google.compose(*event_of(record))
    ours = epsilon_of([record], delta=delta)
    for theirs in (opacus_rdp, float(google.get_epsilon(delta))):
        assert ours <= theirs <= 1.25 * ours


@pytest.mark.parametrize("name", ["heart-disease.toml", "stroke-outcome.toml"])
def test_the_example_plans_keep_their_promise_by_opacus_too(name: str) -> None:
    plan = read_plan(EXAMPLES / name)
    train = plan_mechanisms(plan).train_per_round
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        steps = train.steps * plan.training.rounds
        accountant.history = [(train.noise_multiplier, train.sampling_probability, steps)]
        theirs = accountant.get_epsilon(plan.privacy.delta, eps_error=0.01)
    assert theirs <= plan.privacy.epsilon + 0.02


def test_an_event_that_was_composed_before_costs_exactly_what_a_fresh_composition_says() -> None:
    record = DpSgdSteps(noise_multiplier=1.31, sampling_probability=0.07, steps=5)
    for rounds in (1, 2, 7, 3):  # a ledger asks after every round; what one step costs is kept
        fresh = pld.from_gaussian_mechanism(
            1.31, sampling_prob=0.07, value_discretization_interval=1e-3
        ).self_compose(5 * rounds)
        assert epsilon_of([record] * rounds, delta=1e-5) == fresh.get_epsilon_for_delta(1e-5)
