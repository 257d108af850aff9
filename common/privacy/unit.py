"""The privacy unit and neighbouring relation: what one epsilon is a statement about."""

from typing import Final

PRIVACY_UNIT: Final = "patient"
NEIGHBORING_RELATION: Final = "add_or_remove_one"
UNIT_SENTENCE: Final = (
    "The unit is one patient with all of that patient's rows at this site; two data sets are "
    "neighbours when one has exactly one patient more than the other (add or remove one)."
)
NOT_COVERED_SENTENCE: Final = (
    "Not covered: the declared cohort size, that the site takes part, refusals and their numbers, "
    "the time that work takes, and a patient who is also treated at another site (the two sites' "
    "epsilons then add)."
)
