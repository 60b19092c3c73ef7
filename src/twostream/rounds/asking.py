"""Which candidates of a round may be asked about, as `propose` decided.

Knows candidate tables and boxes; must not know answers, streams or strategies.
"""

from __future__ import annotations

from twostream.candidates.candidate import Candidate
from twostream.candidates.table import from_table, read_table
from twostream.project.project import Project


def may_be_asked(project: Project, round_number: int) -> list[bool]:
    """For every candidate of a round, in the order of its table, whether it belongs to the pool, as `propose` decided.

    Raises:
        InputError: the table cannot be read.
    """
    table = read_table(project.path(round_number, "candidates.parquet"))
    if "in_pool" not in table.column_names:  # written by an older version, which knew boxes only
        return [is_outside_boxes(project, c) for c in from_table(table)]
    answer: list[bool] = table["in_pool"].to_pylist()
    return answer


def is_outside_boxes(project: Project, candidate: Candidate) -> bool:
    """Whether a candidate touches neither a labels box nor the guarded test box."""
    guarded = project.guarded_box
    return not project.boxes.touches_labels(candidate.box) and not (guarded and candidate.box.intersects(guarded))
