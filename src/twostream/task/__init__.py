"""Tasks: what is looked for in an image, and how a proposal is judged.

S is the segmentation network (the name is the paper's). A task says what S is trained to predict (``targets``), how
S's output becomes instances (``decoding``), and when a proposed instance agrees with the truth (``Task.judge``).
``answers`` holds what an annotator can say, ``metrics`` the scores. Must not know torch, files or the loop of rounds.
"""

from twostream.task.decoding import DecodingConfig
from twostream.task.kinds import TASKS, Mitochondria, SynapsePolarity, SynapticCleft, get_task
from twostream.task.metrics import FOUND_IOU, GOOD_IOU
from twostream.task.targets import CERTAIN, IGNORE
from twostream.task.task import NOTHING_SHARE, Judgement, Task

__all__ = [
    "CERTAIN",
    "FOUND_IOU",
    "GOOD_IOU",
    "IGNORE",
    "NOTHING_SHARE",
    "TASKS",
    "DecodingConfig",
    "Judgement",
    "Mitochondria",
    "SynapsePolarity",
    "SynapticCleft",
    "Task",
    "get_task",
]
