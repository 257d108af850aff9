"""The numbered reasons with which a site refuses a request: the number travels, the text does not.

The site's own log and the coordinator's event list both show the sentence from this table, so a
refusal can carry no text that came from data.
"""

from typing import Final

REFUSALS: Final[dict[str, str]] = {
    "R1": "the envelope is not one we can read, or is larger than allowed",
    "R2": "the request is not signed by the coordinator this site enrolled with",
    "R3": "the request is addressed to another site or another key",
    "R4": "the request has expired, or the clocks differ by more than five minutes",
    "R5": "the request is not a message this version knows",
    "R6": "no approval of this exact plan (the digest differs or was never approved)",
    "R7": "the approval has ended or was withdrawn",
    "R8": "the round is not one of the rounds that the plan allows",
    "R9": "the round was already answered for another model, or a later round was (stale)",
    "R10": "the model does not fit the plan: names, shapes, size, digest, or a number that is huge",
    "R11": "the site's limit of epsilon per study is lower than the plan's epsilon",
    "R12": "the site's limit of epsilon over all studies would be passed",
    "R13": "the site's cohort is smaller than the site's minimum",
    "R14": "the site's data cannot be read as the mapping says; hospital IT sees the details",
    "R15": "the site's privacy ledger or release log cannot be written",
    "R16": "the site is busy with another request; ask again",
    "R17": "hospital IT, or a decision that this site follows, has paused this study at this site",
    "R18": "the gate let nothing out; hospital IT sees the details",
    "R19": "the model's scaling is outside its bounds, or not the one this study began with",
    "R20": "the candidates whose pairs are asked for are not ones that the plan allows",
    "R99": "a fault inside the site's software; hospital IT sees the details",
}
