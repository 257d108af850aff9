"""A coordinator that signs what it likes gets no answer without noise, and none for free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.clock import SystemClock
from common.errors import DataSourceError
from common.privacy.mechanism import DpSgdSteps
from common.protocol.arrays import Parameters, encode_parameters, parameters_digest
from common.protocol.messages import RefusedTask, ReleasedTask
from common.study.columns import initial_parameters
from site_client.features.matrix import FeatureMatrix
from site_client.site_features import SourceFeatures
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainedUpdate, TrainingTask
from site_client.training.evaluation import score
from site_client.training.randomness import Randomness
from tests.lib.sites_in_process import make_site


class _Failing:
    """An engine that fails, as one would whose arithmetic a hostile model can break."""

    def __init__(self) -> None:
        self.calls = 0

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        self.calls += 1
        raise FloatingPointError("a value of a patient's row")


def test_a_computation_that_failed_is_never_made_again_and_tells_one_number(
    tmp_path: Path,
) -> None:
    engine = _Failing()
    site = make_site(tmp_path, engine=engine)
    answers = [site.ask(site.envelope(1)) for _ in range(5)]
    assert {answer.number for answer in answers if isinstance(answer, RefusedTask)} == {"R18"}
    assert len(answers) == 5 and engine.calls == 1
    assert len(site.tasks._records.ledger.entries()) >= 1  # what was reserved stays charged


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_weights_at_the_largest_float_are_refused_before_any_row_is_read(
    tmp_path: Path, sign: float
) -> None:
    site = make_site(tmp_path)
    huge = {
        name: np.full_like(array, sign * np.finfo(np.float32).max)
        for name, array in initial_parameters(site.plan).items()
    }
    content = encode_parameters(huge)
    envelope = site.envelope(1, parameters=content, base_version=parameters_digest(content))
    answer = site.ask(envelope)
    assert isinstance(answer, RefusedTask) and answer.number == "R10"
    assert site.tasks._records.ledger.entries() == ()


def test_one_patient_whose_gradient_overflows_changes_no_answer(tmp_path: Path) -> None:
    # The gate's own bound aside: the arithmetic gives every data set an answer.
    site = make_site(tmp_path)
    plan = site.plan
    huge = {
        name: np.where(np.arange(array.size).reshape(array.shape) % 2, 3e38, -3e38).astype("f4")
        for name, array in initial_parameters(plan).items()
    }
    rng = np.random.default_rng(1)
    width = huge["linear.weight"].shape[1]
    x = rng.choice([-1.0, 0.0, 1.0], size=(50, width)).astype(np.float32)
    patients = FeatureMatrix(
        tuple(f"c{index}" for index in range(width)),
        x,
        (rng.random(50) < 0.5).astype(np.float32),
        np.arange(50),
    )
    assert np.isfinite(score(plan, huge, x)).all()
    task = TrainingTask(plan, DpSgdSteps(1.0, 0.5, 3), declared_cohort_size=50)
    # The model itself is huge, so the update is a difference at float32's resolution there: what
    # matters is that it is a number for every neighbouring data set.
    done = DpSgdEngine().train(patients, huge, task, Randomness.reproducible(1))
    assert all(np.isfinite(array).all() for array in done.update.values())


def test_many_requests_for_one_round_keep_a_few_replies(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    answers = [site.ask(site.envelope(1)) for _ in range(12)]
    assert all(isinstance(answer, ReleasedTask) for answer in answers)
    assert len({answer.release_id for answer in answers if isinstance(answer, ReleasedTask)}) == 1
    [[kept]] = site.tasks._records.log._database.rows("SELECT count(*) FROM replies")
    assert kept == 4


def test_a_flood_of_unsigned_requests_does_not_fill_the_log(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    envelope = bytearray(site.envelope(1))
    envelope[-1] ^= 1
    numbers = {site.ask(bytes(envelope)).number for _ in range(100)}  # type: ignore[union-attr]
    assert numbers == {"R2"}
    assert len(site.tasks._records.log.verify()) == 60


def test_numbered_rows_are_answered_for_the_file_that_was_first_and_no_other(
    tmp_path: Path,
) -> None:
    site = make_site(tmp_path)
    source = site.config.source.model_copy(update={"subject_id": "#row"})
    site.tasks._features = SourceFeatures(
        source,
        paths=site.paths,
        salt=site.keys.salt,
        clock=SystemClock(),
        pin=site.tasks._records.source_pin,
        use=None,
    )
    assert isinstance(site.ask(site.envelope(1)), ReleasedTask)
    path = tmp_path / site.config.source.path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *reversed(lines[1:])]))
    answer = site.ask(site.envelope(2))
    assert isinstance(answer, RefusedTask) and answer.number == "R14"
    path.write_bytes(b"".join(lines))
    assert isinstance(site.ask(site.envelope(2)), ReleasedTask)


def test_another_identifier_column_or_salt_is_refused_after_the_first_release(
    tmp_path: Path,
) -> None:
    site = make_site(tmp_path)
    site.ask(site.envelope(1))
    other = site.config.source.model_copy(update={"subject_id": "age"})
    pin = site.tasks._records.source_pin
    assert pin is not None
    with pytest.raises(DataSourceError, match="no longer tells who was in earlier releases"):
        pin.check(other, folder=tmp_path, salt=site.keys.salt)
    with pytest.raises(DataSourceError, match="salt is not the one of earlier releases"):
        pin.check(site.config.source, folder=tmp_path, salt=b"t" * 32)
    pin.check(site.config.source, folder=tmp_path, salt=site.keys.salt)


def test_more_requests_than_places_are_told_to_come_again(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    for _ in range(4):
        site.tasks._places.acquire()
    answer = site.ask(site.envelope(1))
    assert isinstance(answer, RefusedTask) and answer.number == "R16"
    site.tasks._places.release()
    assert isinstance(site.ask(site.envelope(1)), ReleasedTask)
