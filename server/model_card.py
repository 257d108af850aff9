"""Render a version's lineage, metrics and privacy statement as a model card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from common.clock import utc_text
from common.privacy.unit import NOT_COVERED_SENTENCE, UNIT_SENTENCE
from common.study.plan import NumericFeature
from common.study.scaling import Scaling, in_units
from server.registry.store import ModelVersion
from server.study_register import Study
from server.study_report import StudyReport

_MARKDOWN = """\
# Model card: {{ title }}

| | |
|---|---|
| version | `{{ version }}` |
| study | {{ study }} |
| plan digest | `{{ plan_digest }}` |
| after round | {{ round }} of {{ rounds_planned }} |
| created | {{ created }} |

## Intended use

{{ purpose }}

Lawful basis: {{ lawful_basis }}. Contact: {{ contact }}.

## Patients

{{ cohort }} (ages {{ age_min }} to {{ age_max }}).

Predicted: {{ label }}, within {{ horizon }} days.

## Inputs

| feature | codes | unit or levels | public clip bounds |
|---|---|---|---|
{% for row in features -%}
| {{ row.name }} | {{ row.codes }} | {{ row.unit }} | {{ row.clip }} |
{% endfor %}
{% if scaling -%}
Each numeric input is clipped to its bounds, then scaled: (value - mean) / deviation, clipped at
{{ deviations_max }} deviations. Means and deviations are estimates that carry the noise added for
privacy; where they say too little, the middle and half the width of the bounds stand in their
place. They travel in the model's file as `scaling.mean` and `scaling.sd`, for values between the
bounds written as -1 to 1.

| feature | mean | deviation | unit |
|---|---|---|---|
{% for row in scaling -%}
| {{ row.name }} | {{ row.mean }} | {{ row.deviation }} | {{ row.unit }} |
{% endfor %}
{% endif -%}
## Training

{{ model }}, {{ strategy }}, {{ rounds_planned }} rounds of {{ local_steps }} local steps.

| round | sites that took part | sites that did not, and why |
|---|---|---|
{% for row in rounds -%}
| {{ row.number }} | {{ row.present }} | {{ row.absent }} |
{% endfor %}
## Privacy

Each patient: epsilon {{ epsilon }}, delta {{ delta }} over the whole study. {{ unit }}

| site | patients | epsilon spent | epsilon left to this study |
|---|---|---|---|
{% for row in sites -%}
| {{ row.site }} | {{ row.patients }} | {{ row.spent }} | {{ row.left }} |
{% endfor %}
{{ not_covered }}

## Performance

AUROC on {{ evaluated_by }} patients with 95 % intervals that include the noise added for privacy.

| site | AUROC |
|---|---|
{% for row in sites -%}
| {{ row.site }} | {{ row.auroc }} |
{% endfor -%}
| all sites | {{ pooled }} |

## Limitations

The model was checked only on {{ evaluated_by }} patients of the sites above, at the time of
training. It is not a medical device. Before use at a site that is not listed, check it on that
site's patients.
"""

# Forms of Markdown that the card does not use: in a plan's text they stay what they are, text.
_NOT_OURS: Final = (
    *("autolink", "emphasis", "entity", "escape", "html_inline", "image", "link"),
    *("blockquote", "code", "fence", "hr", "html_block", "lheading", "list", "reference"),
)

_HTML_HEAD = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #999;padding:.3rem .6rem;
text-align:left;vertical-align:top}code{word-break:break-all}</style></head><body>
"""


@dataclass(frozen=True)
class ModelCard:
    """One card in both forms."""

    markdown: str
    html: str


def render_card(
    version: ModelVersion, study: Study, report: StudyReport, *, scaling: Scaling | None = None
) -> ModelCard:
    """Return the model card of one version; the HTML is static and runs no script.

    Args:
        version, study, report: what made it.
        scaling: that its file holds.
    """
    facts = _facts(version, study, report) | _scaling_facts(study, scaling)
    # Markdown is text for people; what could break its tables is replaced, not escaped.
    plain = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    markdown = plain.from_string(_MARKDOWN).render(_clean(facts))
    escaped = Environment(undefined=StrictUndefined, autoescape=True)
    head = escaped.from_string(_HTML_HEAD).render(facts)
    # A viewer of the Markdown may take "<" for HTML of its own; our reader below does not.
    return ModelCard(
        markdown=markdown.replace("<", "&lt;"), html=head + _to_html(markdown) + "</body></html>\n"
    )


def _facts(version: ModelVersion, study: Study, report: StudyReport) -> dict[str, Any]:
    plan = study.plan
    return {
        "title": plan.study.title,
        "version": version.version,
        "study": plan.study.id,
        "plan_digest": version.plan_digest,
        "round": version.round_number,
        "rounds_planned": plan.training.rounds,
        "created": utc_text(version.created_at_s),
        "purpose": plan.study.purpose,
        "lawful_basis": plan.study.lawful_basis,
        "contact": plan.study.contact,
        "cohort": plan.cohort.description,
        "age_min": plan.cohort.age_years_min,
        "age_max": plan.cohort.age_years_max,
        "label": plan.label.description,
        "horizon": plan.label.prediction_window_days,
        "features": [
            {
                "name": feature.name,
                "codes": ", ".join(feature.codes),
                "unit": feature.unit
                if isinstance(feature, NumericFeature)
                else " / ".join(feature.levels),
                "clip": f"{feature.clip[0]:g} to {feature.clip[1]:g}"
                if isinstance(feature, NumericFeature)
                else "one column a level",
            }
            for feature in plan.features
        ],
        "model": plan.model.kind.replace("_", " "),
        "strategy": f"{plan.training.strategy.kind} on the "
        + plan.training.aggregation.kind.replace("_", " "),
        "local_steps": plan.training.local_steps,
        "rounds": [
            {
                "number": item["round"] or "scaling",
                "present": ", ".join(item["releases"]) or "none",
                "absent": "; ".join(f"{site}: {why}" for site, why in item["absent"].items())
                or "none",
            }
            for item in version.lineage["rounds"]
        ],
        "epsilon": f"{plan.privacy.epsilon:g}",
        "delta": f"{plan.privacy.delta:g}",
        "unit": UNIT_SENTENCE,
        "not_covered": NOT_COVERED_SENTENCE,
        "sites": [
            {
                "site": site.site_id,
                "patients": site.patients,
                "spent": "" if site.epsilon_spent is None else f"{site.epsilon_spent:.3f}",
                "left": "" if site.epsilon_remaining is None else f"{site.epsilon_remaining:.3f}",
                "auroc": _auroc_text(site.auroc),
            }
            for site in report.sites
        ],
        "pooled": _auroc_text(report.pooled),
        "evaluated_by": report.evaluated_by,
    }


def _scaling_facts(study: Study, scaling: Scaling | None) -> dict[str, Any]:
    if scaling is None or study.plan.scaling is None:
        return {"scaling": [], "deviations_max": ""}
    return {
        "deviations_max": f"{study.plan.scaling.deviations_max:g}",
        "scaling": [
            {
                "name": feature.name,
                "mean": f"{mean:.4g}",
                "deviation": f"{deviation:.4g}",
                "unit": feature.unit,
            }
            for feature, mean, deviation in in_units(scaling, study.plan)
        ],
    }


def _auroc_text(value: Any) -> str:
    if value is None:
        return "insufficient data"
    return f"{value.value:.3f} ({value.low:.2f} to {value.high:.2f})"


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.split()).replace("|", "/").replace("`", "'")
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _to_html(markdown: str) -> str:
    """Return our own card's few Markdown forms as HTML, everything else escaped."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(list(_NOT_OURS))
    return str(reader.render(markdown))
