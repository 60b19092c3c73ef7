"""How a table of objects is read, where its names do not tell.

Knows names and units; must not know what the objects are used for.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from twostream.base.config import Config
from twostream.base.errors import InputError
from twostream.candidates.objects.columns import COLUMNS, ListOrder
from twostream.candidates.objects.read import Objects, read_objects
from twostream.task import Task
from twostream.volume import Volume
from twostream.volume.uri import Uri
from twostream.volume.volume import VoxelSize, check_voxel_size


class TableConfig(Config):
    """How a table of objects is read.

    Attributes:
        columns: {one of ``objects.COLUMNS``: the table's column}, where the table's names do not tell what they hold;
            null ignores a column.
        table_resolution_nm: (z, y, x) nm of the voxels in which the table gives positions; 1,1,1 if it gives nm.
            Without it they are voxels of the image unless their names say nm.
        list_order: order of the numbers in list columns such as ``pre_pt_position``.
    """

    columns: dict[str, str | None] = Field(default_factory=dict)
    table_resolution_nm: tuple[float, float, float] | None = None
    list_order: ListOrder = "xyz"

    @field_validator("table_resolution_nm", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """``--set source.table_resolution_nm=40,4,4`` comes as text."""
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("table_resolution_nm")
    @classmethod
    def _is_a_voxel_size(cls, value: VoxelSize | None) -> VoxelSize | None:
        return None if value is None else check_voxel_size(value, "table_resolution_nm")

    @field_validator("columns")
    @classmethod
    def _are_known(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        for name in value:
            if name not in COLUMNS:
                nearest = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.0)[0]
                raise ValueError(f"{name!r} is none of our columns; the nearest is {nearest!r}")
        return value

    @property
    def says_how_to_read(self) -> bool:
        """Whether anything is said about a table."""
        return bool(self.columns) or self.table_resolution_nm is not None or self.list_order != "xyz"


def read_table_at(uri: str, config: TableConfig, image: Volume, task: Task, section: str) -> Objects:
    """The objects of a table.

    Args:
        uri: of the table, a path of this machine.
        config: how it is read.
        image: objects must lie in it.
        task: of the project.
        section: of the settings in which ``config`` stands, "source" or "labels"; errors name it.

    Raises:
        InputError: the table cannot be read, or does not fit the image or the task.
    """
    try:
        return read_objects(
            Path(Uri.parse(uri).path),
            image,
            task,
            columns=config.columns,
            table_resolution_nm=config.table_resolution_nm,
            list_order=config.list_order,
        )
    except InputError as error:
        # `read_objects` names the settings of a source.
        names = "|".join(TableConfig.model_fields)
        raise InputError(re.sub(rf"\bsource\.({names})\b", rf"{section}.\1", str(error))) from None
