"""Names of vocabularies: a plan's, OMOP's `vocabulary_id`, and FHIR's system URI.

Sources: HL7 terminology, "Code systems" (terminology.hl7.org); OHDSI Athena vocabulary list.
"""

from __future__ import annotations

from typing import Final

SYSTEM_URIS: Final = {
    "http://snomed.info/sct": "SNOMED",
    "http://loinc.org": "LOINC",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm",
    "http://hl7.org/fhir/sid/icd-10": "ICD10",
    "http://hl7.org/fhir/sid/icd-10-cm": "ICD10CM",
    "http://hl7.org/fhir/sid/icd-9-cm": "ICD9CM",
    "http://hl7.org/fhir/sid/cvx": "CVX",
    "http://hl7.org/fhir/sid/ndc": "NDC",
    "http://www.whocc.no/atc": "ATC",
    "http://www.ama-assn.org/go/cpt": "CPT4",
    "http://unitsofmeasure.org": "UCUM",
    "https://dmd.nhs.uk": "dm+d",
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm": "ICD10GM",
    "http://fhir.de/CodeSystem/bfarm/ops": "OPS",
}
"""FHIR's system URI to the vocabulary's name; the names are OMOP's."""


def code_of(vocabulary: str, code: str) -> str:
    """Return a code with its vocabulary, as plans write it."""
    return f"{vocabulary}/{code}"
