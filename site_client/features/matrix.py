"""Patients' values to features [patients, columns], label, and each patient's fixed part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.privacy.mechanism import PATIENT_HASH_PARTS, PatientPart
from common.privacy.patient_parts import patient_parts
from common.study.columns import bins_of_model, feature_columns
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from site_client.features.forward_fill import forward_filled
from site_client.sources.table import MISSING_LEVEL, PatientTable


@dataclass(frozen=True)
class FeatureMatrix:
    """What training and evaluation see of the patients.

    Args:
        columns: names, in the plan's order.
        x: float32 [patients, columns], or [patients, samples, columns] when the plan allows several
            rows of a patient; every value in [-1, 1].
        y: float32 [patients] or [patients, samples], 0 or 1.
        part: int64 [patients], in [0, `PATIENT_HASH_PARTS`).
        weight: float32 like y: a sample's weight in its patient's loss, one over the number of the
            patient's samples; padding has 0. The first sample is always one. None: one sample each.
    """

    columns: tuple[str, ...]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    part: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32] | None = None

    def of_part(self, part: PatientPart) -> FeatureMatrix:
        """Return the patients of one part."""
        chosen = (self.part >= part.first) & (self.part < part.stop)
        weight = None if self.weight is None else self.weight[chosen]
        return FeatureMatrix(
            self.columns, self.x[chosen], self.y[chosen], self.part[chosen], weight
        )

    def first_samples(self) -> FeatureMatrix:
        """Return the matrix with each patient's first sample only."""
        if self.weight is None:
            return self
        return FeatureMatrix(self.columns, self.x[:, 0], self.y[:, 0], self.part)


def build_matrix(table: PatientTable, plan: StudyPlan, *, salt: bytes) -> FeatureMatrix:
    """Return the feature matrix of a table.

    A numeric value is clipped to the plan's public bounds and scaled to [-1, 1]; a missing one is
    0, the middle, beside its indicator. A time bin without a value has the last one before it, and
    its indicator says that nothing was recorded in the bin itself. Nothing is learnt from the
    site's own data, so no scaling statistic needs a privacy budget.

    Args:
        salt: the site's secret, the same for every study.
    """
    bins = bins_of_model(plan)
    blocks = [_block(table, feature) for feature in plan.features]
    if bins is not None:
        blocks = [np.repeat(block, bins // block.shape[1], axis=1) for block in blocks]
        x = np.concatenate(blocks, axis=2).reshape(table.rows, -1)
    else:
        x = np.concatenate([block.reshape(table.rows, -1) for block in blocks], axis=1)
    matrix = FeatureMatrix(
        columns=feature_columns(plan),
        x=np.ascontiguousarray(x),
        y=table.label,
        part=np.array([patient_part(item, salt=salt) for item in table.subject_ids], np.int64),
    )
    samples = plan.privacy.rows_per_patient_max
    if samples == 1:
        return matrix
    return _grouped(matrix, table.subject_ids, samples=samples, salt=salt)


def _block(
    table: PatientTable, feature: NumericFeature | CategoricalFeature
) -> npt.NDArray[np.float32]:
    """Return one feature as [rows, bins, columns]."""
    if isinstance(feature, NumericFeature):
        recorded = table.numeric[feature.name].reshape(table.rows, -1)
        is_missing = np.isnan(recorded)
        values = forward_filled(recorded[..., None])[..., 0]
        low, high = feature.clip
        scaled = (np.clip(values, low, high) - low) / (high - low) * 2 - 1
        columns = [np.where(np.isnan(values), 0.0, scaled)]
    else:
        levels = table.levels[feature.name].reshape(table.rows, 1)
        is_missing = levels == MISSING_LEVEL
        columns = [levels == index for index in range(len(feature.levels))]
    if feature.missing == "indicator":
        columns.append(is_missing)
    return np.stack(columns, axis=2).astype(np.float32)


def _grouped(
    rows: FeatureMatrix, subject_ids: tuple[str, ...], *, samples: int, salt: bytes
) -> FeatureMatrix:
    """Return [patients, samples, ...]: at most `samples` rows of each patient, drawn once.

    The draw is by a salted hash of patient and row, so every round sees the same rows: another draw
    in another round would let more rows of a patient have a say than the plan allows.
    """
    of_patient: dict[str, list[int]] = {}
    for row, subject_id in enumerate(subject_ids):
        of_patient.setdefault(subject_id, []).append(row)
    drawn = []
    for subject_id, found in of_patient.items():
        lots = [_lot(subject_id, ordinal, salt) for ordinal in range(len(found))]
        drawn.append([row for _, row in sorted(zip(lots, found, strict=True))[:samples]])
    x = np.zeros((len(drawn), samples, rows.x.shape[1]), dtype=np.float32)
    y, weight = np.zeros((2, len(drawn), samples), dtype=np.float32)
    for patient, chosen in enumerate(drawn):
        x[patient, : len(chosen)] = rows.x[chosen]
        y[patient, : len(chosen)] = rows.y[chosen]
        weight[patient, : len(chosen)] = 1 / len(chosen)
    part = rows.part[[found[0] for found in of_patient.values()]]
    return FeatureMatrix(rows.columns, x, y, part, weight)


def _lot(subject_id: str, ordinal: int, salt: bytes) -> bytes:
    text = f"{ordinal}\0{subject_id}".encode()
    return hashlib.sha256(b"cohortium/patient-row\0" + salt + text).digest()


def patient_part(subject_id: str, *, salt: bytes) -> int:
    """Return a patient's part, the same in every study at this site and unknown outside it."""
    digest = hashlib.sha256(b"cohortium/patient-part\0" + salt + subject_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") % PATIENT_HASH_PARTS


def split(matrix: FeatureMatrix, plan: StudyPlan) -> tuple[FeatureMatrix, FeatureMatrix]:
    """Return the patients who train and the patients held out; tuning patients are in neither."""
    parts = patient_parts(plan.evaluation)
    return matrix.of_part(parts.training), matrix.of_part(parts.held_out)
