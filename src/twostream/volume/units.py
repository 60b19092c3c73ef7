"""Units of length as files spell them, in nanometres.

Knows words; must not know formats. A word that is no unit of length is None here, and never taken for nanometres.
"""

from __future__ import annotations

import re

_NM = {
    1e-1: ("angstrom", "ångström", "å", "a"),
    1.0: ("nanometer", "nanometre", "nm"),
    1e3: ("micrometer", "micrometre", "micron", "um", "µm", "μm", "\\u00b5m", "mum", "mu m"),
    1e6: ("millimeter", "millimetre", "mm"),
    1e7: ("centimeter", "centimetre", "cm"),
    2.54e7: ("inch", "in", '"'),
    1e9: ("meter", "metre", "m"),
}
_NM_PER_WORD = {word: nm for nm, words in _NM.items() for word in words}


def nm_per_unit(unit: object) -> float | None:
    """Nanometres in one ``unit`` of length.

    Args:
        unit: as a file states it, in any case, in the singular or plural, British or American: "nm", "Nanometers",
            "micrometre", "µm" (either letter, or ImageJ's escape ``\\\\u00B5m``), "um", "m"; text or bytes.

    Returns:
        None if the word is no unit of length that is known, such as "", "pixel" or None.
    """
    if isinstance(unit, bytes):
        unit = unit.decode("utf-8", "replace")
    if not isinstance(unit, str):
        return None
    word = re.sub(r"\s+", " ", unit.strip().strip("\0")).lower()
    if word in _NM_PER_WORD:
        return _NM_PER_WORD[word]
    return _NM_PER_WORD.get(word[:-1]) if word.endswith("s") and len(word) > 3 else None
