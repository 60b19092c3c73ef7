"""Strategies that wrap others: those of scikit-activeml, and any strategy on a random subset of a large pool."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from twostream.base.errors import InputError
from twostream.query.bounds import mapping, whole
from twostream.query.pool import Pool, spread_out
from twostream.query.strategy import Selection, Strategy, get_strategy, register_strategy

CLASSES = (0.0, 1.0)
COMMITTEE = 5
"""Classifiers of a committee."""
NOT_ASKED = {"X", "y", "candidates", "batch_size", "return_utilities"}
"""Arguments that every query of scikit-activeml has; a further required argument is a model."""


@register_strategy("skactiveml")
class SkActiveML(Strategy):
    """Any strategy of scikit-activeml for one annotator and classes, by the name of its class (Kottke 2021).

    It sees the answered and the askable rows, with all streams concatenated. A strategy that needs a classifier gets
    logistic regression on standardised features; one that needs a committee gets five of these on bootstrap samples;
    one that works only with a mixture model or a Parzen window gets that. Strategies for regression are refused.

    The utilities are those of its first choice.

    Args:
        name: class in ``skactiveml.pool``, such as "CoreSet".
        settings: arguments of that class, without ``random_state`` and ``missing_label``.
        random_state: its seed.
    """

    def __init__(self, *, name: str = "", settings: Mapping[str, Any] | None = None, random_state: int = 0) -> None:
        super().__init__(random_state=random_state)
        self.name, self.settings = name, mapping("settings", settings)
        self._class = _find(name)
        known = dict(inspect.signature(self._class).parameters)
        del known["random_state"], known["missing_label"]
        if "classes" in known:
            self.settings.setdefault("classes", list(CLASSES))
        if unknown := sorted(set(map(str, self.settings)) - set(known)):
            raise InputError(
                f"scikit-activeml's {name} has no setting {unknown[0]!r}; it has: {', '.join(sorted(known)) or 'none'}."
            )
        if missing := [n for n, p in known.items() if p.default is p.empty and n not in self.settings]:
            raise InputError(f"scikit-activeml's {name} needs the setting {missing[0]!r}.")
        self._models = _wanted_models(self._class)

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        rows = np.concatenate([pool.askable, pool.answered])
        models = {argument: _model(kind, self.random_state) for argument, kind in self._models.items()}
        try:
            strategy = self._class(**self.settings, random_state=self.random_state)
            with threadpool_limits(limits=1):
                found, utilities = strategy.query(
                    X=pool.take(rows), y=pool.y[rows], candidates=np.arange(len(pool.askable)),
                    batch_size=batch_size, return_utilities=True, **models,
                )  # fmt: skip
        except Exception as error:  # code of another package may raise anything
            raise InputError(f"scikit-activeml's {self.name} did not run: {_one_line(error)}") from error
        picked = np.asarray(found)
        if picked.shape != (batch_size,) or len(np.unique(picked)) < batch_size:
            raise InputError(
                f"scikit-activeml's {self.name} chose {len(np.unique(picked))} different rows; wanted {batch_size}."
            )
        if picked.min() < 0 or picked.max() >= len(pool.askable):
            raise InputError(f"scikit-activeml's {self.name} chose a row that may not be asked.")
        first = np.asarray(utilities, float)[0, : len(pool.askable)]
        reasons = [{"utility": float(first[i]) if np.isfinite(first[i]) else None} for i in picked]
        return Selection(pool.askable[picked], spread_out(pool, first), reasons)


def _find(name: str) -> Any:
    """The class of scikit-activeml called ``name``; InputError where there is none."""
    try:
        module: Any = importlib.import_module("skactiveml.pool")
    except ImportError as error:
        raise InputError(
            f"scikit-activeml cannot be imported ({error}); in a checkout: pip install -e '.[rivals]'."
        ) from None
    base = importlib.import_module("skactiveml.base").SingleAnnotatorPoolQueryStrategy
    found = {n: c for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base) and c is not base}
    names = sorted(n for n, c in found.items() if not inspect.isabstract(c))
    if name not in names:
        raise InputError(f"scikit-activeml has no strategy {name!r} for one annotator; it has {', '.join(names)}.")
    return found[name]


def _wanted_models(cls: Any) -> dict[str, str]:
    """{argument of its query: kind of model}; InputError where it needs something that we do not have."""
    wanted = {}
    for argument, parameter in inspect.signature(cls.query).parameters.items():
        if argument == "self" or argument in NOT_ASKED or parameter.default is not parameter.empty:
            continue
        if argument == "query_kwargs":
            raise InputError(f"scikit-activeml's {cls.__name__} wraps others; use the strategy 'sub-sampling'.")
        if argument not in ("clf", "estimator", "discriminator", "ensemble"):
            what = "is for regression" if argument == "reg" else f"wants {argument!r}"
            raise InputError(f"scikit-activeml's {cls.__name__} {what}; only strategies for two classes can be run.")
        wanted[argument] = ONLY_WITH.get(cls.__name__, "committee" if argument == "ensemble" else "classifier")
    return wanted


ONLY_WITH = {
    "FourDs": "mixture",
    "ProbabilisticAL": "window",
    "EpistemicUncertaintySampling": "window",
    "MonteCarloEER": "window",
    "ValueOfInformationEER": "window",
}
"""Strategies that need a classifier with densities, counts, or a fit that takes weights, not only probabilities."""


def _model(kind: str, seed: int) -> Any:
    classifier: Any = importlib.import_module("skactiveml.classifier")
    if kind == "mixture":
        return classifier.MixtureModelClassifier(classes=list(CLASSES), random_state=seed)
    if kind == "window":
        return classifier.ParzenWindowClassifier(classes=list(CLASSES), random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    if kind == "committee":
        model = BaggingClassifier(model, n_estimators=COMMITTEE, random_state=seed)
    return classifier.SklearnClassifier(model, classes=list(CLASSES), random_state=seed)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@register_strategy("sub-sampling")
class SubSampling(Strategy):
    """Another strategy on a random subset of the askable rows, and on all answered ones.

    Args:
        strategy: name of the other strategy.
        max_rows: askable rows that it sees; never fewer than the batch.
        settings: its settings.
        random_state: seed of the subset and of the other strategy.
    """

    def __init__(
        self,
        *,
        strategy: str = "",
        max_rows: int = 20_000,
        settings: Mapping[str, Any] | None = None,
        random_state: int = 0,
    ) -> None:
        super().__init__(random_state=random_state)
        self.max_rows = whole("max_rows", max_rows)
        self.inner = get_strategy(strategy, settings, random_state=random_state)
        self.needs_probability = self.inner.needs_probability
        self.needs_ensemble = self.inner.needs_ensemble
        self.needs_position = self.inner.needs_position
        self.keeps_row_order = self.inner.keeps_row_order

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        number = max(self.max_rows, batch_size)
        if number >= len(pool.askable):
            return self.inner._select(pool, batch_size, rng)
        share = np.sort(rng.choice(len(pool.askable), number, replace=False))
        chosen = self.inner._select(replace(pool, askable=pool.askable[share]), batch_size, rng)
        note = f"a random {number} of {len(pool.askable)} candidates that may be asked were looked at"
        return replace(chosen, notes=(note, *chosen.notes))
