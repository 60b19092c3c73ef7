"""Tables of objects, such as the synapses of an existing connectome: reading and checking them."""

from twostream.candidates.objects.columns import COLUMNS, ListOrder
from twostream.candidates.objects.config import TableConfig, read_table_at
from twostream.candidates.objects.files import is_table
from twostream.candidates.objects.read import UNKNOWN_SCORE, Objects, read_objects

__all__ = [
    "COLUMNS",
    "UNKNOWN_SCORE",
    "ListOrder",
    "Objects",
    "TableConfig",
    "is_table",
    "read_objects",
    "read_table_at",
]
