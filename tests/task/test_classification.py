"""Classification judged: against scikit-learn, against every constant answer, and what a guesser is worth."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from edgewright.core.errors import BadInput
from edgewright.task.kind import has_learned
from edgewright.task.kinds.classification import Classification

NAMES = ("ant", "bee", "cow", "dog", "eel")
SHARES = [0.62, 0.2, 0.1, 0.06, 0.02]


def answered(count: int = 700, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and targets of unequal classes, right more often than not."""
    random = np.random.default_rng(seed)
    targets = random.choice(5, count, p=SHARES)
    outputs = random.normal(size=(count, 5))
    outputs[np.arange(count), targets] += 1.0
    return torch.from_numpy(outputs).float(), torch.from_numpy(targets)


def figures(kind, outputs, targets, sizes=(700,)):
    found = {}
    for metric in kind.metrics:
        state = metric.start()
        for y, t in zip(outputs.split(sizes), targets.split(sizes), strict=True):
            state = metric.add(state, y, t)
        found[metric.name] = metric.value(state)
        found |= metric.each(state)
    return found


def test_figures_are_those_of_scikit_learn_in_any_batches():
    kind, (outputs, targets) = Classification(NAMES, {}), answered()
    said = outputs.argmax(1)
    wanted = {
        "accuracy": 100 * float((said == targets).float().mean()),
        "balanced_accuracy": 100 * balanced_accuracy_score(targets, said),
        "macro_f1": 100 * f1_score(targets, said, average="macro"),
    }
    for sizes in ((700,), (1, 399, 300)):
        found = figures(kind, outputs, targets, sizes)
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)
        assert found["recall"] == pytest.approx((100 * recall_score(targets, said, average=None)).tolist(), rel=1e-5)


def test_a_class_that_is_not_there_counts_for_nothing():
    kind = Classification(NAMES, {})
    targets = torch.tensor([0, 0, 1, 1])
    outputs = torch.eye(5)[torch.tensor([0, 1, 1, 1])]
    found = figures(kind, outputs, targets, (4,))
    assert found["balanced_accuracy"] == pytest.approx(75)
    assert np.isnan(found["recall"][4])


def test_a_guesser_is_the_best_constant_answer():
    kind, (_, targets) = Classification(NAMES, {}), answered(seed=3)
    constant = [figures(kind, torch.eye(5)[one].expand(len(targets), 5), targets) for one in range(5)]
    for name, value in kind.guess(targets).items():
        assert value == pytest.approx(max(found[name] for found in constant), rel=1e-5)


@pytest.mark.parametrize(
    ("counts", "name"),
    [([50, 50], "accuracy"), ([65, 35], "accuracy"), ([67, 33], "balanced_accuracy"), ([499, 1], "balanced_accuracy")],
)
def test_lopsided_targets_are_judged_by_balanced_accuracy(counts, name):
    targets = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
    assert Classification(("no", "yes"), {}).decides(targets) == name


@pytest.mark.parametrize("share", [0.5, 0.95, 0.998])
def test_who_only_knows_the_majority_has_learned_nothing(share):
    kind = Classification(("no", "yes"), {})
    targets = (torch.arange(1000) >= 1000 * share).long()
    only = torch.tensor([1.0, 0.0]).expand(1000, 2)
    scores = [metric.of(figures(kind, only, targets, (1000,))[metric.name]) for metric in kind.metrics]
    assert not has_learned(scores, kind.guess(targets))
    better = torch.eye(2)[torch.where(torch.arange(1000) % 10 == 0, 1 - targets, targets)]  # nine of ten right
    scores = [metric.of(figures(kind, better, targets, (1000,))[metric.name]) for metric in kind.metrics]
    assert has_learned(scores, kind.guess(targets))


def test_what_is_told_of_one_sample():
    kind = Classification(("a", "b", "c"), {})
    told = kind.tell(torch.tensor([[0.0, np.log(3.0), 0.0]]), (9, 7), None)
    assert told["class"] == "b"
    assert told["probability"] == pytest.approx(0.6)
    assert [entry["class"] for entry in told["top"]] == ["b", "a", "c"]
    assert kind.line(told) == "b\t0.6000"


def test_pictures_show_confusion_recall_and_mistakes():
    kind = Classification(("a", "b"), {})
    targets, answers = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 1, 0])
    matrix, bars, gallery = kind.pictures(torch.zeros(5, 1, 9, 7, dtype=torch.uint8), targets, answers, 255.0)
    assert matrix.counts == ((1, 1), (1, 2))
    assert dict(zip(bars.names, bars.values, strict=True)) == pytest.approx({"a": 50, "b": 200 / 3})
    assert [(item.said, item.truth) for item in gallery.items] == [("b", "is a"), ("a", "is b")]


def test_one_class_and_too_few_of_a_class_are_refused():
    with pytest.raises(BadInput, match="one class only"):
        Classification(("a",), {}).check(torch.zeros(5, dtype=torch.int64), 1, "x")
    with pytest.raises(BadInput, match="every class needs at least 3 images to split, but 'b' has 2"):
        Classification(("a", "b"), {}).check(torch.tensor([0, 0, 0, 1, 1]), 3, "x")
