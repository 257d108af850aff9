"""From one FHIR R4 resource to rows of the event table: one function per resource type.

What is no event by its own status is left out without a count beside `records`: what was not done,
cancelled, only planned or refuted, and a request not to give (`_NO_EVENT`, `doNotPerform`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from common import limits
from site_client.sources.events import BIRTH, DEATH, SEX, SEXES, Exclusion, SourceCounts, VisitClass
from site_client.sources.fhir_elements import (
    Element,
    References,
    child,
    children,
    referred,
    standard_code,
    text,
    unmapped_key,
)
from site_client.sources.fhir_times import WallClock
from site_client.sources.fhir_values import NO_VALUE, Value, value_of

Row: TypeAlias = tuple[
    str | None, int | None, str | None, float | None, str | None, str | None, str | None
]
"""Subject, microseconds, code, number, unit, text, and the Medication that the code is of."""

_VISIT_CLASSES: Final = {
    "IMP": VisitClass.INPATIENT,
    "ACUTE": VisitClass.INPATIENT,
    "NONAC": VisitClass.INPATIENT,
    "EMER": VisitClass.EMERGENCY,
    "AMB": VisitClass.OUTPATIENT,
    "VR": VisitClass.OUTPATIENT,
    "HH": VisitClass.OUTPATIENT,
}
_NO_EVENT: Final[dict[str, frozenset[str]]] = {
    "Encounter": frozenset({"planned", "cancelled"}),
    "Observation": frozenset({"cancelled"}),
    "MedicationRequest": frozenset({"cancelled", "draft"}),
    "MedicationAdministration": frozenset({"not-done"}),
    "Procedure": frozenset({"not-done", "preparation"}),
    "Immunization": frozenset({"not-done"}),
}
_OTHER_CODES: Final = "other codes"


class MedicationRow(NamedTuple):
    """A Medication resource: its standard code, or what it is counted under without one."""

    medication_id: str
    code: str | None
    unmapped: str | None


@dataclass
class Findings:
    """What resources gave since the last shard, and the counts of the whole source.

    Args:
        clock: of the site.
        code_map: the site's own codes, `system|code`, to standard ones.
        counts: `excluded` without what needs the whole source (subjects, duplicates).
        references: of the bundle now read.
    """

    clock: WallClock
    code_map: Mapping[str, str] = field(default_factory=dict)
    counts: SourceCounts = field(default_factory=SourceCounts)
    references: References = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    medications: list[MedicationRow] = field(default_factory=list)

    def leave_out(self, reason: Exclusion, times: int = 1) -> None:
        """Count what is no event, or one with something missing."""
        self.counts.excluded[reason] = self.counts.excluded.get(reason, 0) + times

    def leave_out_unmapped(self, key: str, times: int = 1) -> None:
        """Count an event without a standard code."""
        self.leave_out(Exclusion.UNMAPPED, times)
        unmapped = self.counts.unmapped
        if key not in unmapped and len(unmapped) >= limits.SOURCE_CODES_LISTED_MAX:
            key = _OTHER_CODES
        unmapped[key] = unmapped.get(key, 0) + times


def read_resource(resource: Element, resource_type: str, findings: Findings) -> None:
    """Add one resource's events; types without any only count as a record.

    Raises:
        NotFhir: an element has another shape than FHIR gives it.
    """
    records = findings.counts.records
    records[resource_type] = records.get(resource_type, 0) + 1
    reader = _READERS.get(resource_type)
    if reader is None:
        return
    status = resource.get("status")
    if status == "entered-in-error":
        findings.leave_out(Exclusion.ENTERED_IN_ERROR)
    elif type(status) is not str or status not in _NO_EVENT.get(resource_type, ()):
        reader(resource, findings)


def _patient(resource: Element, findings: Findings) -> None:
    subject = text(resource, "id")
    if subject is None:
        findings.leave_out(Exclusion.NO_SUBJECT)
        return
    findings.patients.append(subject)
    sex = resource.get("gender")
    if type(sex) is str and sex in SEXES:
        findings.rows.append((subject, None, SEX, None, None, sex, None))
    elif sex is not None:
        findings.leave_out_unmapped("Patient.gender of another value set")
    if "birthDate" in resource:
        _event(findings, subject, resource["birthDate"], BIRTH)
    if "deceasedDateTime" in resource:
        _event(findings, subject, resource["deceasedDateTime"], DEATH)
    elif resource.get("deceasedBoolean") is True:
        findings.leave_out(Exclusion.TIME_UNREADABLE)


def _encounter(resource: Element, findings: Findings) -> None:
    class_code = text(child(resource, "class") or {}, "code")
    if class_code is None:
        findings.leave_out(Exclusion.NO_CODE)
        return
    subject = referred(resource, "subject", "Patient", findings.references)
    name = _VISIT_CLASSES.get(class_code, class_code)
    period = child(resource, "period") or {}
    _event(findings, subject, period.get("start"), f"Visit/{name}")
    if "end" in period:
        _event(findings, subject, period["end"], f"VisitEnd/{name}")


def _condition(resource: Element, findings: Findings) -> None:
    verification = child(resource, "verificationStatus") or {}
    for coding in children(verification, "coding"):
        if coding.get("code") == "entered-in-error":
            findings.leave_out(Exclusion.ENTERED_IN_ERROR)
            return
        if coding.get("code") == "refuted":
            return
    time = _first(resource, "onsetDateTime", "onsetPeriod", "recordedDate")
    _coded(resource, "code", "Condition", time, findings)


def _observation(resource: Element, findings: Findings) -> None:
    subject = referred(resource, "subject", "Patient", findings.references)
    time = _first(resource, "effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued")
    components = children(resource, "component")
    value = value_of(resource, findings.code_map)
    if not components or value.is_present:
        _valued(resource, subject, time, value, findings)
    for component in components:
        value = value_of(component, findings.code_map)
        _valued(component, subject, time, value, findings)


def _valued(
    element: Element, subject: str | None, time: object, value: Value, findings: Findings
) -> None:
    code = _code(element, "code", "Observation", findings)
    if code is not None and _event(findings, subject, time, code, value) and value.is_unreadable:
        findings.leave_out(Exclusion.VALUE_UNREADABLE)


def _medication(resource: Element, findings: Findings) -> None:
    medication_id = text(resource, "id")
    if medication_id is None:
        return
    concept = child(resource, "code")
    code = None if concept is None else standard_code(concept, findings.code_map)
    key = None if concept is None or code is not None else unmapped_key(concept, "Medication")
    findings.medications.append(MedicationRow(medication_id, code, key))


def _medication_request(resource: Element, findings: Findings) -> None:
    if resource.get("doNotPerform") is not True:
        _given(resource, "MedicationRequest", resource.get("authoredOn"), findings)


def _medication_administration(resource: Element, findings: Findings) -> None:
    time = _first(resource, "effectiveDateTime", "effectivePeriod")
    _given(resource, "MedicationAdministration", time, findings)


def _given(resource: Element, resource_type: str, time: object, findings: Findings) -> None:
    reference = child(resource, "medicationReference")
    if "medicationCodeableConcept" in resource or reference is None:
        _coded(resource, "medicationCodeableConcept", resource_type, time, findings)
        return
    literal = text(reference, "reference") or ""
    if literal.startswith("#"):
        contained = children(resource, "contained")
        inner = next((item for item in contained if item.get("id") == literal[1:]), {})
        code = _code(inner, "code", resource_type, findings)
        medication_id = None
        if code is None:
            return
    else:
        code = None
        medication_id = referred(resource, "medicationReference", "Medication", findings.references)
        if medication_id is None:
            findings.leave_out(Exclusion.NO_CODE)
            return
    subject = referred(resource, "subject", "Patient", findings.references)
    _event(findings, subject, time, code, medication_id=medication_id)


def _procedure(resource: Element, findings: Findings) -> None:
    time = _first(resource, "performedDateTime", "performedPeriod")
    _coded(resource, "code", "Procedure", time, findings)


def _immunization(resource: Element, findings: Findings) -> None:
    time = resource.get("occurrenceDateTime")
    _coded(resource, "vaccineCode", "Immunization", time, findings, subject_name="patient")


_READERS: Final[dict[str, Callable[[Element, Findings], None]]] = {
    "Patient": _patient,
    "Encounter": _encounter,
    "Condition": _condition,
    "Observation": _observation,
    "Medication": _medication,
    "MedicationRequest": _medication_request,
    "MedicationAdministration": _medication_administration,
    "Procedure": _procedure,
    "Immunization": _immunization,
}


def _first(resource: Element, *names: str) -> object:
    """Return the first time that is there; a Period stands for its start."""
    for name in names:
        found: object = resource.get(name)
        if name.endswith("Period") and found is not None:
            found = (child(resource, name) or {}).get("start")
        if found is not None:
            return found
    return None


def _coded(
    resource: Element,
    name: str,
    resource_type: str,
    time: object,
    findings: Findings,
    *,
    subject_name: str = "subject",
) -> None:
    code = _code(resource, name, resource_type, findings)
    if code is not None:
        subject = referred(resource, subject_name, "Patient", findings.references)
        _event(findings, subject, time, code)


def _code(element: Element, name: str, resource_type: str, findings: Findings) -> str | None:
    concept = child(element, name)
    if concept is None:
        findings.leave_out(Exclusion.NO_CODE)
        return None
    code = standard_code(concept, findings.code_map)
    if code is None:
        findings.leave_out_unmapped(unmapped_key(concept, resource_type))
    return code


def _event(
    findings: Findings,
    subject: str | None,
    time: object,
    code: str | None,
    value: Value = NO_VALUE,
    *,
    medication_id: str | None = None,
) -> bool:
    moment = findings.clock.read(time)
    if isinstance(moment, Exclusion):
        findings.leave_out(moment)
        return False
    findings.rows.append(
        (subject, moment, code, value.number, value.unit, value.words, medication_id)
    )
    return True
