"""Strategies that choose the candidates about which the scorer is least sure.

With two answers, entropy, margin and least confidence rank candidates alike, by |p - 1/2|, and differ only in their
utilities; of several scorers all three take the mean. All are kept because papers name them. BALD asks where several
scorers disagree; ClaSP PE adds noise to the entropy and balances the predicted classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from twostream.query.bounds import positive, share, whole
from twostream.query.pool import Pool, spread_out, top
from twostream.query.strategy import Selection, Strategy, register_strategy

SMALLEST = 1e-12


def entropy(probability: np.ndarray) -> np.ndarray:
    """Shannon entropy of two answers, in nats: -p log p - (1 - p) log(1 - p)."""
    p = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return -p * np.log(p) - (1 - p) * np.log1p(-p)


class MostUncertain(Strategy):
    """The candidates with the largest utility; subclasses define it."""

    needs_probability = True
    utility_name = "utility"

    def utility(self, probability: np.ndarray) -> np.ndarray:
        """(A,) utility of (M, A) probabilities."""
        raise NotImplementedError

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        assert pool.probability is not None
        utilities = spread_out(pool, self.utility(pool.probability[:, pool.askable]))
        rows = top(pool, utilities[pool.askable], batch_size, rng)
        return Selection(rows, utilities, [{self.utility_name: float(utilities[r])} for r in rows])


@register_strategy("entropy")
class Entropy(MostUncertain):
    """Largest entropy of the mean probability (Shannon 1948; Settles 2009)."""

    utility_name = "entropy"

    def utility(self, probability: np.ndarray) -> np.ndarray:
        return entropy(probability.mean(0))


@register_strategy("margin")
class Margin(MostUncertain):
    """Smallest margin between the two answers (Scheffer 2001): 1 - |2p - 1|."""

    utility_name = "one_minus_margin"

    def utility(self, probability: np.ndarray) -> np.ndarray:
        return 1 - np.abs(2 * probability.mean(0) - 1)


@register_strategy("least-confident")
class LeastConfident(MostUncertain):
    """Least probable likelier answer (Lewis and Gale 1994): 1 - max(p, 1 - p)."""

    utility_name = "doubt"

    def utility(self, probability: np.ndarray) -> np.ndarray:
        p = probability.mean(0)
        return np.minimum(p, 1 - p)


@register_strategy("bald")
class Bald(MostUncertain):
    """Largest mutual information of answer and scorer (Houlsby 2011, eq. 2), in nats.

    Entropy of the mean probability minus the mean entropy: large where each scorer is sure and they disagree.
    """

    needs_ensemble = True
    utility_name = "mutual_information"

    def utility(self, probability: np.ndarray) -> np.ndarray:
        return np.maximum(0, entropy(probability.mean(0)) - entropy(probability).mean(0))


@register_strategy("clasp-pe")
class ClaspPE(Strategy):
    """Class-stratified scheduled power predictive entropy (ClaSP PE, Lüth 2026).

    The utility is log entropy + Gumbel noise / beta (power noising, Kirsch 2023), drawn once per candidate. A share of
    the batch is split equally between the two predicted classes, each giving its largest utilities; the rest goes to
    the largest utilities of either class. A class with too few candidates is filled up by the other. beta grows from
    round to round, so that the first batches are diverse and the last ones follow the entropy.

    Published: 66 % stratified, and noise that decays exponentially. The constants of that decay could not be found:
    ours goes from beta = 1 (Kirsch's) to 100 (noise of standard deviation 0.013) in five rounds. The published classes
    are those of voxels without the background; here they are the two answers, and both count.

    Args:
        stratified: share of the batch that is drawn by class.
        first_beta, last_beta: beta of the first round, and of round ``num_rounds`` and later.
        num_rounds: rounds in which beta grows; a round is the number of answers divided by the batch, rounded down.
        random_state: seed of the noise.
    """

    needs_probability = True

    def __init__(
        self,
        *,
        stratified: float = 0.66,
        first_beta: float = 1.0,
        last_beta: float = 100.0,
        num_rounds: int = 5,
        random_state: int = 0,
    ) -> None:
        super().__init__(random_state=random_state)
        self.stratified = share("stratified", stratified)
        self.first_beta = positive("first_beta", first_beta)
        self.last_beta = positive("last_beta", last_beta)
        self.num_rounds = whole("num_rounds", num_rounds)

    def beta(self, round_number: int) -> float:
        """Inverse strength of the noise in round ``round_number``."""
        grown = min(1.0, round_number / max(1, self.num_rounds - 1))
        return self.first_beta * (self.last_beta / self.first_beta) ** grown

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        p = pool.mean_probability[pool.askable]
        plain = entropy(p)
        beta = self.beta(len(pool.answered) // batch_size)
        utility = np.log(plain) + rng.gumbel(size=len(p)) / beta
        order = np.argsort(-utility, kind="stable")
        says_true = p[order] >= 0.5
        chosen = np.zeros(len(p), bool)
        for class_, quota in zip((True, False), self._quotas(says_true, batch_size, rng), strict=True):
            chosen[order[says_true == class_][:quota]] = True
        by_class = chosen.copy()
        chosen[order[~chosen[order]][: batch_size - chosen.sum()]] = True
        picked = order[chosen[order]]
        reasons: list[dict[str, Any]] = [
            {"predicted": bool(p[i] >= 0.5), "by_class": bool(by_class[i]), "entropy": float(plain[i]), "beta": beta}
            for i in picked
        ]
        return Selection(pool.askable[picked], spread_out(pool, utility), reasons)

    def _quotas(self, says_true: np.ndarray, batch_size: int, rng: np.random.Generator) -> tuple[int, int]:
        """Candidates drawn as predicted True, and as predicted False."""
        wanted = int(self.stratified * batch_size)
        odd = int(rng.integers(2)) * (wanted % 2)  # which class gets the odd candidate
        has_true, has_false = int(says_true.sum()), int((~says_true).sum())
        true = min(wanted // 2 + odd, has_true)
        false = min(wanted - true, has_false)
        return min(wanted - false, has_true), false
