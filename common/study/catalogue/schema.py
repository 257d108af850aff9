"""What the catalogue adds to the JSON schema of a plan file."""

from __future__ import annotations

from typing import Any

from common.study.catalogue.entries import read_catalogue
from common.study.catalogue.expansion import CHANGES, KEY


def with_catalogue(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a plan's schema in which features may be taken from the catalogue.

    Args:
        schema: of `StudyPlan`, whose features are written out.
    """
    parts, properties = dict(schema["$defs"]), dict(schema["properties"])
    terms = {"enum": [term for item in read_catalogue().entries.values() for term in item.terms()]}
    numeric = parts["NumericFeature"]["properties"]
    parts["CatalogueFeature"] = {
        "type": "object",
        "additionalProperties": False,
        "required": [KEY],
        "properties": {KEY: terms} | {key: numeric[key] for key in CHANGES},
    }
    features = dict(properties["features"])
    reference = {"$ref": "#/$defs/CatalogueFeature"}
    properties["features"] = features | {"items": {"anyOf": [features["items"], reference]}}
    properties[KEY] = {"type": "array", "items": terms}
    required = [key for key in schema["required"] if key != "features"]
    either = [{"required": ["features"]}, {"required": [KEY]}]
    return schema | {
        "$defs": parts,
        "properties": properties,
        "required": required,
        "anyOf": either,
    }
