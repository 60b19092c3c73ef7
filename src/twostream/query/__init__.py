"""Which candidates to show a person: pure functions of arrays, usable without the rest of the project.

Knows numpy, scipy and scikit-learn; must not know disks, models, people or rounds.
"""

from twostream.query.baselines import Entropy, Random
from twostream.query.scorer import Scorer
from twostream.query.strategy import STRATEGIES, Selection, Strategy, get_strategy, register_strategy
from twostream.query.two_stream import TwoStream

__all__ = [
    "STRATEGIES",
    "Entropy",
    "Random",
    "Scorer",
    "Selection",
    "Strategy",
    "TwoStream",
    "get_strategy",
    "register_strategy",
]
