"""Numbers and durations as text. Knows nothing of projects."""

from __future__ import annotations

MISSING = "–"
"""Stands in place of a value that is missing or undefined."""


def formatted(value: float | None, digits: int) -> str:
    """A number with ``digits`` decimals; ``MISSING`` for None and NaN."""
    return MISSING if value is None or value != value else f"{value:,.{digits}f}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun: ``1 round``, ``2 rounds``.

    Args:
        count: the number.
        one: the noun in the singular.
        many: its plural, where adding an "s" does not make one.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def duration(seconds: float | None) -> str:
    """Seconds in the two largest fitting units, such as ``1 h 02 min``; ``MISSING`` for None and NaN."""
    if seconds is None or seconds != seconds:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
