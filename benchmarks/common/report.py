"""Tables of LOG.md and docs/ from the rows in benchmarks/results/.

A table stands between ``<!-- results: NAME -->`` and ``<!-- end -->`` and shows the rows whose group is NAME, in the
order of the files:

- a line for every combination of settings; settings that all rows of the group share are left out;
- a column for every measure; within a cell, values that differ only in "arm" are joined by " / ", those that differ
  only in "repetition" by ", ";
- a spread follows its number in brackets; a count out of 20 reads "19 of 20"; differences have their sign.

Tables and plots of ``twostream bench efficiency`` are made as well (``efficiency.py``).

    python -m common.report            # in benchmarks/: rewrites the tables
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from common import efficiency
from common.results import FOLDER, ROOT, Row, read

MARKED = re.compile(r"(<!-- results: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
ARM, REPETITION = "arm", "repetition"
LABELS = {"f1": "F1", "auc": "AUC", "iou": "IoU", "ap": "AP", "average precision": "AP", "mb": "MB", "s": "S"}
UNITS_IN_LABEL = {"F1", "AP", "IoU", "AUC", "share", "nats", "squared error", "times", "objects", "answers", "runs"}
"""Units that the name of the measure says already, or that have no symbol."""
SHARES = {"F1", "AP", "IoU", "AUC", "share", "nats"}
"""Units of values that are reported with the same number of decimals throughout."""


def all_rows(folder: Path = FOLDER) -> dict[str, list[Row]]:
    """Rows of every group, in the order of the files."""
    groups: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for row in read(path):
            groups.setdefault(row["group"], []).append(row)
    return groups


def texts() -> list[Path]:
    """Files that may hold tables."""
    return [ROOT / "LOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str, groups: dict[str, list[Row]]) -> str:
    """``text`` with every marked table made from the rows; raises KeyError for a group without rows."""
    return MARKED.sub(lambda found: f"{found[1]}\n{table(groups[found['name']])}\n{found[3]}", text)


def names_in(text: str) -> list[str]:
    """Groups whose tables a text holds."""
    return [found["name"] for found in MARKED.finditer(text)]


def table(rows: Sequence[Row]) -> str:
    """Markdown of one group; raises ValueError where two rows say the same thing."""
    keys = _index(rows)
    lines: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    columns: dict[str, list[Row]] = {}
    seen = set()
    for row in rows:
        line, column = tuple(_shown(row["settings"].get(key)) for key in keys), row["name"].split(".", 1)[1]
        place = (line, column, *(str(row["settings"].get(key)) for key in (ARM, REPETITION)))
        if place in seen:
            raise ValueError(f"group {row['group']!r} has two rows for {place}; settings must tell them apart.")
        seen.add(place)
        lines.setdefault(line, {}).setdefault(column, []).append(row)
        columns.setdefault(column, []).append(row)
    heading = [*keys, *(_heading(name, found) for name, found in columns.items())]
    body = [[*line, *(_cell(cells.get(name, ()), columns[name]) for name in columns)] for line, cells in lines.items()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heading, ["---"] * len(heading), *body])


def _index(rows: Sequence[Row]) -> list[str]:
    """Settings that tell the lines of a table apart."""
    keys = dict.fromkeys(key for row in rows for key in row["settings"] if key not in (ARM, REPETITION))
    return [key for key in keys if len({_shown(row["settings"].get(key)) for row in rows}) > 1]


def _shown(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(map(_shown, value)) if isinstance(value, list) else str(value)


def _arms(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["settings"][ARM] for row in rows if ARM in row["settings"]))


def _heading(name: str, rows: Sequence[Row]) -> str:
    """Name, unit and arms of a column."""
    label = name.replace("_", " ")
    for written, wanted in LABELS.items():
        label = re.sub(rf"\b{written}\b", wanted, label)
    unit = rows[0]["unit"].removesuffix(" difference")
    if unit not in UNITS_IN_LABEL and not unit.startswith("of "):
        label += f" ({unit})"
    arms = _arms(rows)
    return label + (": " + " / ".join(arms) if arms else "")


def _cell(found: Sequence[Row], column: Sequence[Row]) -> str:
    """Values of one cell. Shares and scores have as many decimals as their column needs, others as their cell needs."""
    unit = column[0]["unit"].removesuffix(" difference")
    decimals = max(map(_decimals, _numbers(column if unit in SHARES else found)), default=0)
    if ARM not in column[0]["settings"]:
        return ", ".join(_value(row, decimals) for row in found)
    by_arm = {arm: [row for row in found if row["settings"].get(ARM) == arm] for arm in _arms(column)}
    if not found:
        return ""
    return " / ".join(", ".join(_value(row, decimals) for row in rows) or "-" for rows in by_arm.values())


def _numbers(rows: Sequence[Row]) -> Iterator[float]:
    for row in rows:
        yield from (value for value in (row["number"], *(row["spread"] or ())) if value is not None)


def _decimals(number: float) -> int:
    return max(0, -int(Decimal(str(number)).as_tuple().exponent))


def _value(row: Row, decimals: int) -> str:
    number, spread, unit = row["number"], row["spread"], row["unit"]
    if unit.startswith("of ") and number is not None:
        return f"{number} {unit}"
    sign = "+" if unit.endswith("difference") else ""
    shown = [f"{value:{sign},.{decimals}f}" for value in (spread or ())]
    if number is None:
        return " to ".join(shown)
    first = f"{number:{sign},.{decimals}f}"
    return f"{first} [{', '.join(shown)}]" if spread else first


def main() -> None:
    groups = all_rows()
    for path in texts():
        before = path.read_text(encoding="utf-8")
        after = efficiency.filled(filled(before, groups))
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {len(names_in(after))} tables", file=sys.stderr)
        for name, score in efficiency.names_in(after):
            print(efficiency.plot(name, score).relative_to(ROOT), file=sys.stderr)


if __name__ == "__main__":
    main()
