"""Which candidates to show a person: pure functions of arrays, usable without the rest of the project.

Knows numpy, scipy and scikit-learn; must not know disks, models, people or rounds.
"""

from twostream.query.adapters import SkActiveML, SubSampling
from twostream.query.baselines import Random, RandomSpace
from twostream.query.diversity import Badge, CoreSet, KMeans, ProbCover, TypiClust, WeightedKMeans
from twostream.query.look_ahead import LookAhead
from twostream.query.scorer import Scorer
from twostream.query.strategy import STRATEGIES, Selection, Strategy, get_strategy, register_strategy
from twostream.query.two_stream import TwoStream
from twostream.query.uncertainty import Bald, ClaspPE, Entropy, LeastConfident, Margin

__all__ = [
    "STRATEGIES",
    "Badge",
    "Bald",
    "ClaspPE",
    "CoreSet",
    "Entropy",
    "KMeans",
    "LeastConfident",
    "LookAhead",
    "Margin",
    "ProbCover",
    "Random",
    "RandomSpace",
    "Scorer",
    "Selection",
    "SkActiveML",
    "Strategy",
    "SubSampling",
    "TwoStream",
    "TypiClust",
    "WeightedKMeans",
    "get_strategy",
    "register_strategy",
]
