"""SVG elements and axes: text is escaped here, and looks come from classes alone.

No element has a `style` attribute, so that a strict content security policy holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

from server.monitor_board.web.numbers import MINUS

Attribute = str | float | int


def element(tag: str, *children: Markup | str, **attributes: Attribute) -> Markup:
    """Return one element; `class_` is `class`, other underscores in names are hyphens.

    Args:
        children: text is escaped, markup is not.
        attributes: escaped; floats are written with two decimals.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for name, value in attributes.items()
    )
    inside = "".join(str(escape(child)) for child in children)
    return Markup(f"<{tag}{written}>{inside}</{tag}>")  # noqa: S704 (every part is escaped above)


def text(x: float, y: float, words: str, **attributes: Attribute) -> Markup:
    """Return a text element at a place."""
    return element("text", words, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: Attribute) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def path_through(points: list[tuple[float, float]], **attributes: Attribute) -> Markup:
    """Return an open polyline through points."""
    written = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return element("polyline", points=written, fill="none", **attributes)


def picture(
    name: str, title: str, description: str, size: tuple[int, int], *parts: Markup
) -> Markup:
    """Return a whole picture that a screen reader reads by title and description.

    Args:
        name: unique in its page; its letters make the ids.
    """
    width, height = size
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        class_="chart",
        width=width,
        height=height,
    )


@dataclass(frozen=True)
class Scale:
    """A straight map from values to pixels."""

    low: float
    high: float
    first_px: float
    last_px: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values outside end at the border."""
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return self.first_px + share * (self.last_px - self.first_px)


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Return round values within [low, high], at most `most` of them (Heckbert 1990)."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)][: most + 1]


def tick_text(value: float) -> str:
    """Return a tick's label, without needless zeros."""
    return f"{value:.4g}".replace("-", MINUS)


def _value(value: Attribute) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
