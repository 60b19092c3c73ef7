"""What is looked for: targets for S, decoding of its output, and the rule that calls a candidate good."""

from twostream.task.decoding import DecodingConfig
from twostream.task.kinds import TASKS, Mitochondria, SynapsePolarity, SynapticCleft, get_task
from twostream.task.targets import CERTAIN, IGNORE
from twostream.task.task import FOUND_IOU, GOOD_IOU, NOTHING_SHARE, Judgement, Task

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
