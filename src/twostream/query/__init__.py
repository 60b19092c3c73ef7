"""Which candidates to show a person: pure functions of arrays, usable without the rest of the project.

Knows numpy, scipy and scikit-learn; must not know disks, models, people or rounds.
"""

from twostream.query.baselines import Random, RandomSpace
from twostream.query.scorer import Scorer
from twostream.query.strategy import STRATEGIES, Selection, Strategy, get_strategy, register_strategy
from twostream.query.two_stream import TwoStream
from twostream.query.uncertainty import Entropy

__all__ = [
    "STRATEGIES",
    "Entropy",
    "Random",
    "RandomSpace",
    "Scorer",
    "Selection",
    "Strategy",
    "TwoStream",
    "get_strategy",
    "register_strategy",
]
