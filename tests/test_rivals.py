"""Each rival against a plain version of itself on small pools, and the ways round other people's strategies."""

import itertools
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from twostream.base.errors import InputError
from twostream.query import (
    STRATEGIES,
    Badge,
    Bald,
    ClaspPE,
    CoreSet,
    Entropy,
    KMeans,
    LeastConfident,
    Margin,
    ProbCover,
    RandomSpace,
    Selection,
    SkActiveML,
    Strategy,
    SubSampling,
    TypiClust,
    WeightedKMeans,
    diversity,
    get_strategy,
    register_strategy,
)
from twostream.query.pool import check_pool

NOTHING = np.zeros((400, 1))
"""Features for strategies that do not look at them."""


def unanswered(number):
    return np.full(number, np.nan)


def world(number=200, width=6, num_answered=12, seed=0):
    """Features, and y with some answers."""
    rng = np.random.default_rng(seed)
    y = unanswered(number)
    y[rng.choice(number, num_answered, replace=False)] = np.arange(num_answered) % 2
    return rng.normal(size=(number, width)), y


# -- uncertainty --------------------------------------------------------------------------------------------------


def test_three_names_of_one_order():
    p = np.random.default_rng(0).random((2, 100))
    rows, utilities = zip(
        *(
            cls().query(NOTHING[:100], unanswered(100), batch_size=100, probability=p, return_utilities=True)
            for cls in (Entropy, Margin, LeastConfident)
        ),
        strict=True,
    )
    mean = p.mean(0)
    np.testing.assert_array_equal(rows[0], np.argsort(np.abs(mean - 0.5)))
    np.testing.assert_array_equal(rows[1], rows[0])
    np.testing.assert_array_equal(rows[2], rows[0])
    np.testing.assert_allclose(utilities[1], [1 - abs(q - (1 - q)) for q in mean])
    np.testing.assert_allclose(utilities[2], [1 - max(q, 1 - q) for q in mean])


def test_bald_is_the_mutual_information_of_answer_and_scorer():
    p = np.random.default_rng(0).random((4, 50))
    rows, utilities = Bald().query(
        NOTHING[:50], unanswered(50), batch_size=5, probability=p, return_utilities=True
    )  # fmt: skip
    for row in range(50):
        # sum over scorer and answer of p(m, a) log(p(m, a) / (p(m) p(a)))
        information = 0.0
        for answer in (True, False):
            each = [q if answer else 1 - q for q in p[:, row]]
            information += sum(q / 4 * np.log(q / (sum(each) / 4)) for q in each)
        assert utilities[row] == pytest.approx(information)
    assert rows.tolist() == np.argsort(-utilities)[:5].tolist()
    certain_but_split = np.array([[0.5, 0.0], [0.5, 1.0]])
    assert Bald().query(NOTHING[:2], unanswered(2), batch_size=1, probability=certain_but_split).tolist() == [1]


# -- ClaSP PE -----------------------------------------------------------------------------------------------------


def silent(**settings):
    """ClaSP PE with noise too weak to matter."""
    return ClaspPE(first_beta=1e9, last_beta=1e9, **settings)


@pytest.mark.parametrize("batch_size", [3, 10, 50])
def test_clasp_pe_shares_the_batch_between_predicted_classes(batch_size):
    p = np.random.default_rng(0).random(200) ** 3  # few are predicted True
    doubt = np.minimum(p, 1 - p)
    rows = set(silent().query(NOTHING[:200], unanswered(200), batch_size=batch_size, probability=p).tolist())
    stratified = int(0.66 * batch_size)
    possible = []
    for num_true in {stratified // 2, stratified - stratified // 2}:  # the odd one goes either way
        true = sorted(np.flatnonzero(p >= 0.5), key=lambda i: -doubt[i])[:num_true]
        false = sorted(np.flatnonzero(p < 0.5), key=lambda i: -doubt[i])[: stratified - num_true]
        rest = sorted(set(range(200)) - {*true, *false}, key=lambda i: -doubt[i])[: batch_size - stratified]
        possible.append({*true, *false, *rest})
    assert rows in possible


def test_clasp_pe_fills_up_where_one_class_is_short():
    p = np.r_[np.full(3, 0.9), np.linspace(0.1, 0.4, 57)]
    chosen = silent().suggest(NOTHING[:60], unanswered(60), batch_size=50, probability=p)
    assert {0, 1, 2} <= set(chosen.rows.tolist()) and len(set(chosen.rows.tolist())) == 50
    assert sum(reason["by_class"] for reason in chosen.reasons) == 33
    for other in (1 - p, p / 2):  # few are predicted False; none True
        chosen = silent().suggest(NOTHING[:60], unanswered(60), batch_size=50, probability=other)
        assert sum(reason["by_class"] for reason in chosen.reasons) == 33


def test_the_noise_of_clasp_pe_decays_geometrically():
    strategy = ClaspPE()
    np.testing.assert_allclose([strategy.beta(r) for r in range(7)], [1, 10**0.5, 10, 10**1.5, 100, 100, 100])
    assert ClaspPE(num_rounds=1).beta(0) == 1 and ClaspPE(num_rounds=1).beta(1) == 100
    rng = np.random.default_rng(0)
    p = rng.random(400)
    agreement = []
    for num_answered in (0, 40, 80):  # rounds 0, 2 and 4 of a batch of 20
        y = np.where(np.arange(400) < num_answered, 1.0, np.nan)
        asked = {"X": NOTHING, "y": y, "batch_size": 20, "probability": p}
        best = set(silent().query(**asked).tolist())
        agreement.append(np.mean([len(best & set(ClaspPE(random_state=s).query(**asked).tolist())) for s in range(30)]))
    assert agreement[0] + 1 < agreement[1] < agreement[2] - 3  # entropy alone is flat about its top


def test_power_noise_draws_in_proportion_to_a_power_of_the_entropy():
    p = np.array([0.5, 0.1, 0.02])
    entropy = np.array([-q * np.log(q) - (1 - q) * np.log(1 - q) for q in p])
    for beta in (1, 2):
        counts = np.zeros(3)
        for seed in range(1500):  # one row, which no class can claim
            strategy = ClaspPE(first_beta=beta, last_beta=beta, random_state=seed)
            counts[strategy.query(NOTHING[:3], unanswered(3), batch_size=1, probability=p)] += 1
        expected = entropy**beta / (entropy**beta).sum()
        assert np.abs(counts / 1500 - expected).max() < 0.05  # four standard deviations


# -- the lazy choice ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", [1, 3, 64])
def test_the_lazy_choice_is_that_of_a_plain_loop(monkeypatch, front):
    monkeypatch.setattr(diversity, "FRONT", front)
    rng = np.random.default_rng(0)
    truth = np.cumsum(rng.integers(-1, 1, (60, 80)), axis=0)  # small whole numbers: many are equal
    taken, expected = [], []
    for now in truth:
        expected.append(int(np.argmax(np.where(np.isin(np.arange(80), expected), -np.inf, now))))
    for i in diversity.greedy(truth[0].astype(float), 60, lambda front: truth[len(taken)][front]):
        taken.append(i)
    assert taken == expected


# -- core-set -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", [1, 4, 64])
def test_core_set_is_the_farthest_first_of_a_plain_loop(monkeypatch, front):
    monkeypatch.setattr(diversity, "FRONT", front)
    X, y = world(300)  # noqa: N806
    chosen = CoreSet().suggest(X, y, batch_size=100)
    centers, expected = np.flatnonzero(~np.isnan(y)).tolist(), []
    distance = cdist(X, X)
    for reason in chosen.reasons:
        nearest = distance[:, centers].min(1)
        expected.append(int(np.argmax(nearest)))
        assert reason["distance"] == pytest.approx(nearest.max())
        centers.append(expected[-1])
    assert chosen.rows.tolist() == expected


@pytest.mark.parametrize("front", [1, 64])
def test_core_set_among_equals(monkeypatch, front):
    monkeypatch.setattr(diversity, "FRONT", front)
    X = np.array(list(itertools.product(range(12), range(12))), float)  # noqa: N806
    chosen = CoreSet().suggest(X, unanswered(144), batch_size=100)
    distance = cdist(X, X)
    for k in range(1, 100):
        nearest = distance[:, chosen.rows[:k]].min(1)
        assert chosen.reasons[k]["distance"] == nearest[chosen.rows[k]] == nearest.max()


def test_core_set_without_answers_begins_anywhere():
    X, _ = world(50)  # noqa: N806
    rows = [CoreSet(random_state=seed).query(X, unanswered(50), batch_size=3).tolist() for seed in range(20)]
    assert len({r[0] for r in rows}) > 5
    distance = cdist(X, X)
    for first, second, third in rows:
        assert second == np.argmax(distance[first])
        assert third == np.argmax(np.minimum(distance[first], distance[second]))


def test_core_set_looks_at_all_streams_with_equal_weight():
    rng = np.random.default_rng(0)
    X = {"supervised": rng.normal(size=(50, 2)), "unsupervised": 1e-3 * rng.normal(size=(50, 2))}  # noqa: N806
    X["unsupervised"][7] = 0.05  # far off in the stream of small numbers
    y = unanswered(50)
    y[0] = 1
    assert CoreSet().query(X, y, batch_size=1).tolist() == [7]


# -- k-means ------------------------------------------------------------------------------------------------------


def blobs(sizes, seed=0, width=4, spread=0.1):
    """Groups far apart, and which row is of which."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    centers = 20 * rng.normal(size=(len(sizes), width))
    return centers[group] + spread * rng.normal(size=(len(group), width)), group


def test_k_means_asks_the_middle_of_every_group_and_the_largest_first():
    X, group = blobs([5, 30, 12, 20])  # noqa: N806
    chosen = KMeans().suggest(X, unanswered(67), batch_size=4)
    assert group[chosen.rows].tolist() == [1, 3, 2, 0]
    for row, reason in zip(chosen.rows, chosen.reasons, strict=True):
        members = np.flatnonzero(group == group[row])
        to_center = np.linalg.norm(X[members] - X[members].mean(0), axis=1)
        assert row == members[np.argmin(to_center)]
        assert reason["stands_for"] == len(members)
        assert reason["distance_to_center"] == pytest.approx(to_center.min(), rel=1e-3)


def test_weighted_k_means_is_drawn_to_the_uncertain():
    rng = np.random.default_rng(0)
    X, p = rng.random((80, 1)), rng.random(80)  # noqa: N806
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    for prefilter in (5, 40, 100):
        kept = np.argsort(-entropy)[:prefilter]
        center = sum(entropy[i] * X[i, 0] for i in kept) / sum(entropy[i] for i in kept)
        expected = min(kept, key=lambda i: abs(X[i, 0] - center))
        found = WeightedKMeans(prefilter=prefilter).query(X, unanswered(80), batch_size=1, probability=p)
        assert found.tolist() == [expected]


# -- BADGE --------------------------------------------------------------------------------------------------------


def full_gradients(X, p):  # noqa: N803
    """(N, 2 D) gradients of the loss with respect to the last layer, were the likelier class true, by finite steps."""

    def loss(weights, x, offset, label):
        logits = weights @ x + offset
        return np.log(np.exp(logits).sum()) - logits[label]

    gradients = []
    for x, q in zip(X, p, strict=True):
        offset, label = np.log([1 - q, q]), int(q >= 0.5)  # with weights 0 the model says q
        steps = [np.zeros((2, len(x))) for _ in range(2 * len(x))]
        for i, step in enumerate(steps):
            step.flat[i] = 1e-5
        gradients.append([(loss(s, x, offset, label) - loss(-s, x, offset, label)) / 2e-5 for s in steps])
    return np.array(gradients)


def test_badge_measures_as_the_full_gradient_matrix_does():
    X, _ = world(30, width=3)  # noqa: N806
    p = np.random.default_rng(1).uniform(0.05, 0.95, 30)
    full = full_gradients(X, p)
    gradients = diversity.Gradients(check_pool(X, unanswered(30), p), np.arange(30))
    np.testing.assert_allclose(
        cdist(gradients.take(np.arange(30)), gradients.take(np.arange(30))), cdist(full, full), atol=1e-6
    )
    np.testing.assert_allclose(gradients.length(), np.linalg.norm(full, axis=1), atol=1e-6)
    utilities = Badge().query(X, unanswered(30), batch_size=1, probability=p, return_utilities=True)[1]
    np.testing.assert_allclose(utilities, np.linalg.norm(full, axis=1), atol=1e-6)


@pytest.mark.parametrize(("draws", "stale"), [(256, 0.25), (1, 0.25), (3, 0.0), (3, 1.0)])
def test_badge_draws_exactly_as_k_means_plus_plus(monkeypatch, draws, stale):
    """With old and with new distances; were the origin a centre, the second row would hardly ever be drawn."""
    monkeypatch.setattr(diversity, "DRAWS", draws)
    monkeypatch.setattr(diversity, "STALE", stale)
    X = np.array([[4.0, 0], [0.2, 0], [0, 1], [-3, 1], [1.5, -1]])  # noqa: N806
    p = np.full(5, 0.4)
    gradients = diversity.Gradients(check_pool(X, unanswered(5), p), np.arange(5))
    squared = cdist(X, X) ** 2
    first = int(np.argmax(np.linalg.norm(X, axis=1)))
    expected = {}
    for order in itertools.permutations(set(range(5)) - {first}, 3):
        chance, chosen = 1.0, [first]
        for i in order:
            nearest = squared[:, chosen].min(1)
            chance *= nearest[i] / nearest.sum()
            chosen.append(i)
        expected[order] = chance
    rng, number = np.random.default_rng(0), 2000
    counts = dict.fromkeys(expected, 0)
    for _ in range(number):
        counts[tuple(diversity.spread(gradients, first, 4, rng)[0][1:])] += 1
    worst = max(abs(counts[o] - number * c) / np.sqrt(number * c * (1 - c)) for o, c in expected.items())
    assert worst < 4  # standard deviations, of 24 orders


def test_badge_says_how_far_each_is_from_those_before():
    X, y = world(150)  # noqa: N806
    p = np.random.default_rng(1).random(150)
    chosen = Badge().suggest(X, y, batch_size=60, probability=p)
    g = np.sqrt(2) * (p - (p >= 0.5))[:, None] * X
    askable = np.flatnonzero(np.isnan(y))
    assert chosen.rows[0] == askable[np.argmax(np.linalg.norm(g[askable], axis=1))]
    assert chosen.reasons[0]["distance"] is None
    for k in range(1, 60):
        nearest = cdist(g[chosen.rows[k : k + 1]], g[chosen.rows[:k]]).min()
        assert chosen.reasons[k]["distance"] == pytest.approx(nearest)


def test_badge_repeats_nothing_where_all_gradients_are_equal():
    X = np.ones((30, 2))  # noqa: N806
    for p in (np.full(30, 0.3), np.ones(30)):
        chosen = Badge().suggest(X, unanswered(30), batch_size=29, probability=p)
        assert len(set(chosen.rows.tolist())) == 29
        assert all(reason["distance"] == 0 for reason in chosen.reasons[1:])


# -- TypiClust ----------------------------------------------------------------------------------------------------


def test_typiclust_asks_the_most_typical_of_the_largest_unanswered_clusters():
    sizes = [60, 40, 30, 25, 15, 4]  # the last is too small to matter
    X, group = blobs(sizes, seed=3)  # noqa: N806
    y = unanswered(len(X))
    y[np.flatnonzero(group == 0)[0]] = 1  # the largest has an answer
    chosen = TypiClust().suggest(X, y, batch_size=5)
    assert group[chosen.rows].tolist() == [1, 2, 3, 4, 0]
    assert [reason["answers_there"] for reason in chosen.reasons] == [0, 0, 0, 0, 1]
    for row in chosen.rows:
        members = np.flatnonzero(group == group[row])
        distance = np.sort(cdist(X[members], X[members]), axis=1)[:, 1:21].mean(1)
        askable = np.isnan(y[members])
        assert row == members[askable][np.argmin(distance[askable])]


def test_typiclust_comes_back_to_a_cluster_for_the_next_typical_row(monkeypatch):
    monkeypatch.setattr(diversity, "MOST_CLUSTERS", 2)
    X, group = blobs([30, 20], seed=1)  # noqa: N806
    chosen = TypiClust().suggest(X, unanswered(50), batch_size=6)
    assert group[chosen.rows].tolist() == [0, 1, 0, 1, 0, 1]
    for label in (0, 1):
        members = np.flatnonzero(group == label)
        distance = np.sort(cdist(X[members], X[members]), axis=1)[:, 1:21].mean(1)
        assert chosen.rows[group[chosen.rows] == label].tolist() == members[np.argsort(distance)[:3]].tolist()


def test_neighbours_in_a_large_cluster_are_sought_in_a_share_of_it(monkeypatch):
    monkeypatch.setattr(diversity, "MOST_MEMBERS", 40)
    X, y = world(150, num_answered=0)  # noqa: N806
    found = diversity.neighbour_distance(check_pool(X, y), np.arange(150), np.random.default_rng(5))
    share = np.random.default_rng(5).choice(150, 40, replace=False)
    for i in range(150):
        among = [j for j in share if j != i]
        assert found[i] == pytest.approx(np.sort(np.linalg.norm(X[among] - X[i], axis=1))[:20].mean())


# -- ProbCover ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", [1, 64])
def test_probcover_always_covers_most_of_what_is_open(monkeypatch, front):
    monkeypatch.setattr(diversity, "FRONT", front)
    X, y = world(250, width=2)  # noqa: N806
    found = []
    pure_radius = diversity.pure_radius

    def shorter(*values):  # the radius is a distance between two rows, of which the last digit would decide
        found.append(pure_radius(*values) * (1 - 1e-9))
        return found[-1]

    monkeypatch.setattr(diversity, "pure_radius", shorter)
    strategy = ProbCover(num_classes=5, purity=0.8)
    chosen = strategy.suggest(X, y, batch_size=100)
    askable, radius = np.flatnonzero(np.isnan(y)), found[0]
    assert chosen.notes == (f"balls have a radius of {radius:.4g}",)
    graph = cdist(X, X) < radius
    is_open = np.isnan(y) & ~graph[:, ~np.isnan(y)].any(1)
    assert 0 < is_open.sum() < len(askable)  # answers cover something, and not all
    first = strategy.query(X, y, batch_size=1, return_utilities=True)[1]
    np.testing.assert_array_equal(first[askable], graph[askable][:, is_open].sum(1))
    for row, reason in zip(chosen.rows, chosen.reasons, strict=True):
        gain = graph[:, is_open].sum(1)
        assert reason["covers"] == gain[row] == gain[askable].max()
        is_open &= ~graph[row]
    assert chosen.reasons[0]["covers"] > 3 and chosen.reasons[-1]["covers"] == 0  # the rest was random
    assert not is_open.any()


@pytest.mark.parametrize("purity", [0.95, 0.5, 1.0])
def test_the_radius_is_the_largest_with_pure_balls(purity):
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(120, 2)), rng.integers(0, 3, 120)  # noqa: N806
    radius = diversity.pure_radius(X, labels, purity)

    def pure(r):
        return np.mean([len(set(labels[np.linalg.norm(X - x, axis=1) < r].tolist())) == 1 for x in X])

    assert pure(radius * (1 - 1e-9)) >= purity > pure(radius * (1 + 1e-9))


def test_probcover_shows_itself_a_share_of_a_large_pool():
    X, y = world(200)  # noqa: N806
    chosen = ProbCover(max_rows=30).suggest(X, y, batch_size=40)
    assert "30 random candidates stood for 188" in chosen.notes
    assert np.isfinite(chosen.utilities).sum() == 30 and len(set(chosen.rows.tolist())) == 40
    assert np.isfinite(chosen.utilities[chosen.rows[:5]]).all()


# -- random over space --------------------------------------------------------------------------------------------


def test_random_over_space_asks_where_candidates_are_few():
    rng = np.random.default_rng(0)
    place = np.r_[rng.uniform(0, 100, (300, 3)), rng.uniform(0, 1000, (100, 3))]  # a crowd in a thousandth of the box
    asked = np.concatenate(
        [
            RandomSpace(random_state=s).query(NOTHING, unanswered(400), batch_size=20, position_nm=place)
            for s in range(20)
        ]
    )
    assert (asked >= 300).mean() > 0.9  # a quarter, were candidates drawn evenly


# -- strategies of scikit-activeml --------------------------------------------------------------------------------


def test_scikit_activemls_core_set_chooses_what_ours_does():
    X, y = world(120)  # noqa: N806
    theirs = SkActiveML(name="CoreSet").suggest(X, y, batch_size=30, excluded=np.arange(120) < 20)
    ours = CoreSet().suggest(X, y, batch_size=30, excluded=np.arange(120) < 20)
    assert theirs.rows.tolist() == ours.rows.tolist()
    np.testing.assert_allclose(theirs.utilities, ours.utilities)


def test_settings_and_answers_reach_scikit_activeml():
    X, y = world(100, num_answered=40)  # noqa: N806
    X[:, 0] += 3 * np.nan_to_num(y, nan=0.5)
    chosen = SkActiveML(name="UncertaintySampling", settings={"method": "entropy"}).suggest(X, y, batch_size=10)
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    known = ~np.isnan(y)
    scaler = StandardScaler().fit(X[known])
    model = LogisticRegression().fit(scaler.transform(X[known]), y[known])
    p = model.predict_proba(scaler.transform(X))[:, 1]
    expected = np.flatnonzero(~known)[np.argsort(np.abs(p[~known] - 0.5))[:10]]
    assert sorted(chosen.rows.tolist()) == sorted(expected.tolist())


@pytest.mark.parametrize(
    "name",
    [
        "BatchBALD", "Clue", "ContrastiveAL", "CostEmbeddingAL", "DiscriminativeAL", "DropQuery",
        "EpistemicUncertaintySampling", "Falcun", "FourDs", "GreedyBALD", "GreedySamplingX", "MaxHerding",
        "MonteCarloEER", "ProbCover", "ProbabilisticAL", "QueryByCommittee", "Quire", "RandomSampling", "TypiClust",
        "ValueOfInformationEER",
    ],
)  # fmt: skip
def test_scikit_activeml_strategies_run(name):
    X, y = world(40, num_answered=14)  # noqa: N806
    rows = get_strategy("skactiveml", {"name": name}).query(X, y, batch_size=5)
    assert len(set(rows.tolist())) == 5 and np.isnan(y[rows]).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "CoreSett"}, "has no strategy 'CoreSett' for one annotator; it has Badge, BatchBALD"),
        ({}, "has no strategy ''"),
        ({"name": "IntervalEstimationThreshold"}, "has no strategy 'IntervalEstimationThreshold' for one annotator"),
        ({"name": "GreedySamplingTarget"}, "GreedySamplingTarget is for regression"),
        ({"name": "SubSamplingWrapper"}, "SubSamplingWrapper wraps others; use the strategy 'sub-sampling'"),
        ({"name": "CoreSet", "settings": {"norm": 1}}, "CoreSet has no setting 'norm'; it has: metric, metric_dict"),
        ({"name": "ExpectedErrorReduction"}, "ExpectedErrorReduction needs the setting 'enforce_mapping'"),
    ],
)
def test_what_scikit_activeml_cannot_run_is_named(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        get_strategy("skactiveml", settings)


def test_what_goes_wrong_inside_scikit_activeml_is_named():
    X, y = world(30)  # noqa: N806
    with pytest.raises(InputError, match="scikit-activeml's UncertaintySampling did not run: ValueError"):
        SkActiveML(name="UncertaintySampling", settings={"method": "guess"}).query(X, y, batch_size=3)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([0, 1, 1], "chose 2 different rows; wanted 3"),
        ([0, 1], "chose 2 different rows; wanted 3"),
        ([0, 1, 25], "chose a row that may not be asked"),
        ([0, 1, -1], "chose a row that may not be asked"),
    ],
)
def test_rows_of_scikit_activeml_are_checked(monkeypatch, found, sentence):
    import skactiveml.pool
    from skactiveml.base import SingleAnnotatorPoolQueryStrategy

    class Wild(SingleAnnotatorPoolQueryStrategy):
        def query(self, X, y, candidates=None, batch_size=1, return_utilities=False):  # noqa: N803
            assert len(X) == len(y) == 30 and len(candidates) == 18
            return np.array(found), np.zeros((1, 30))

    monkeypatch.setattr(skactiveml.pool, "Wild", Wild, raising=False)
    X, y = world(30)  # noqa: N806
    with pytest.raises(InputError, match=sentence):
        SkActiveML(name="Wild").query(X, y, batch_size=3)


def test_without_scikit_activeml_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skactiveml.pool", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[rivals\]'"):
        SkActiveML(name="CoreSet")


# -- sub-sampling -------------------------------------------------------------------------------------------------


def test_sub_sampling_shows_a_share_and_all_answers():
    seen = []

    @register_strategy("spy")
    class Spy(Strategy):
        needs_probability = True

        def __init__(self, *, colour="red", random_state=0):
            super().__init__(random_state=random_state)
            self.colour = colour

        def _select(self, pool, batch_size, rng):
            seen.append((self.colour, pool.askable.tolist(), sorted(pool.answered.tolist())))
            return Selection(pool.askable[:batch_size], unanswered(len(pool.y)), [{}] * batch_size, ("seen",))

    try:
        X, y = world(100)  # noqa: N806
        p = np.full(100, 0.5)
        shares = []
        for seed in range(3):
            strategy = SubSampling(strategy="spy", max_rows=20, settings={"colour": "blue"}, random_state=seed)
            chosen = strategy.suggest(X, y, batch_size=5, probability=p)
            colour, askable, answered = seen.pop()
            assert colour == "blue" and len(set(askable)) == 20 and np.isnan(y[askable]).all()
            assert answered == np.flatnonzero(~np.isnan(y)).tolist()
            assert set(chosen.rows.tolist()) <= set(askable)
            assert chosen.notes == ("a random 20 of 88 candidates that may be asked were looked at", "seen")
            shares.append(set(askable))
        assert shares[0] != shares[1] != shares[2]
        whole = SubSampling(strategy="spy", max_rows=88).suggest(X, y, batch_size=5, probability=p)
        assert len(seen.pop()[1]) == 88 and whole.notes == ("seen",)
        with pytest.raises(InputError, match="SubSampling needs a probability"):
            SubSampling(strategy="spy").query(X, y, batch_size=5)
    finally:
        del STRATEGIES["spy"]


def test_a_pool_that_is_small_enough_is_seen_as_without_sub_sampling():
    X, y = world(100)  # noqa: N806
    p = np.random.default_rng(1).random(100)
    for name in ("badge", "core-set", "random"):
        plain = get_strategy(name, random_state=3).query(X, y, batch_size=20, probability=p)
        wrapped = get_strategy("sub-sampling", {"strategy": name, "max_rows": 88}, random_state=3)
        np.testing.assert_array_equal(wrapped.query(X, y, batch_size=20, probability=p), plain)


# -- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("clasp-pe", {"stratified": 1.5}, "stratified is 1.5; expected a number from 0 to 1"),
        ("clasp-pe", {"first_beta": 0}, "first_beta is 0; expected a number above 0"),
        ("clasp-pe", {"num_rounds": 2.5}, "num_rounds is 2.5; expected a whole number of at least 1"),
        ("clasp-pe", {"last_beta": "large"}, "last_beta is 'large'; expected a number above 0"),
        ("weighted-k-means", {"prefilter": 0}, "prefilter is 0; expected a whole number"),
        ("probcover", {"purity": -0.1}, "purity is -0.1; expected a number from 0 to 1"),
        ("probcover", {"num_classes": True}, "num_classes is True; expected a whole number"),
        ("probcover", {"max_rows": -1}, "max_rows is -1; expected a whole number"),
        ("sub-sampling", {"strategy": "random", "max_rows": 0}, "max_rows is 0; expected a whole number"),
        ("sub-sampling", {}, "strategy is ''; expected one of"),
        ("sub-sampling", {"strategy": "best"}, "strategy is 'best'; expected one of"),
        ("sub-sampling", {"strategy": "random", "settings": {"k": 1}}, "strategy 'random' has no setting 'k'"),
    ],
)
def test_bad_settings_of_rivals_are_named(name, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        get_strategy(name, settings)
