"""Exact discrete Gaussian noise from uniform random words, by integer arithmetic alone.

Own code and not OpenDP's: these sixty lines have no step that rounds, take the random words of the
site, and are compared with the exact distribution in tests; OpenDP would add a compiled library
with its own source of randomness to the process that holds the rows, for one function.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, TypeAlias

from common.canonical import canonical_float

Words: TypeAlias = Iterator[int]
"""An endless stream of independent, uniform 32-bit integers."""

_WORD_BITS: Final = 32
_WORDS_AT_ONCE: Final = 1024


def system_words() -> Words:
    """Return words of the operating system's cryptographic randomness, fetched 4 KiB at a time."""
    while True:
        words = array("I")
        words.frombytes(os.urandom(_WORDS_AT_ONCE * words.itemsize))
        yield from words


def variance_of(noise_multiplier: float) -> Fraction:
    """Return the square of a noise multiplier, exactly as its record writes it in decimals."""
    return Fraction(canonical_float(noise_multiplier)) ** 2


def discrete_gaussian(variance: Fraction, words: Words) -> int:
    """Return one draw x with probability proportional to exp(-x^2 / (2 variance)).

    Args:
        variance: above 0.
        words: spent by this draw as far as it needs.

    Source: Canonne, Kamath and Steinke 2020 (arXiv:2004.00010), Algorithm 3.
    """
    over, under = variance.numerator, variance.denominator
    scale = math.isqrt(over // under) + 1
    denominator = 2 * over * under * scale * scale
    while True:
        drawn = _discrete_laplace(scale, words)
        distance = abs(drawn) * scale * under - over
        if _bernoulli_exp(distance * distance, denominator, words):
            return drawn


def _discrete_laplace(scale: int, words: Words) -> int:
    """Return x with probability proportional to exp(-abs(x) / scale): Algorithm 2 with s = 1."""
    while True:
        low = _below(scale, words)
        if not _bernoulli_exp(low, scale, words):
            continue
        high = 0
        while _bernoulli_exp(1, 1, words):
            high += 1
        size = low + scale * high
        is_negative = next(words) & 1
        if is_negative and size == 0:
            continue  # zero would count twice
        return -size if is_negative else size


def _bernoulli_exp(over: int, under: int, words: Words) -> bool:
    """Return true with probability exp(-over / under), over >= 0: Algorithm 1."""
    while over > under:
        if not _bernoulli_exp(1, 1, words):
            return False
        over -= under
    turn = 1
    while _bernoulli(over, under * turn, words):
        turn += 1
    return turn % 2 == 1


def _bernoulli(over: int, under: int, words: Words) -> bool:
    """Return true with probability over / under in [0, 1].

    Compares a uniform number with over / under word by word and stops at the first that decides.
    """
    while True:
        # Invariant: true is still owed with probability over / under.
        over <<= _WORD_BITS
        digit, rest = divmod(over, under)
        word = next(words)
        if word != digit:
            return word < digit
        over = rest


def _below(bound: int, words: Words) -> int:
    """Return a uniform integer in [0, bound)."""
    bits = bound.bit_length()
    while True:
        drawn = 0
        for _ in range(0, bits, _WORD_BITS):
            drawn = (drawn << _WORD_BITS) | next(words)
        drawn &= (1 << bits) - 1
        if drawn < bound:
            return drawn
