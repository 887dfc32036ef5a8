"""EPE-NAS against its definition in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.proxy.base import score
from edgewright.proxy.scores.epe_nas import epe_nas


def reference(model: nn.Module, x: torch.Tensor, y: torch.Tensor, classes: int) -> float:
    x = x.clone().requires_grad_()
    model.train()
    model(x).backward(torch.ones(len(x), classes))
    assert x.grad is not None
    jacobians = x.grad.flatten(1).double().numpy()
    scores = {}
    for label in np.unique(y.numpy()):
        rows = jacobians[y.numpy() == label]
        correlation = np.atleast_2d(np.corrcoef(rows))
        scores[label] = np.sum(np.log(np.abs(correlation) + 1e-5)) / (len(rows) if classes > 100 else 1)
    if classes <= 100:
        return float(sum(abs(value) for value in scores.values()))
    return float(sum(abs(a - b) for a in scores.values() for b in scores.values()) / len(scores))


@pytest.mark.parametrize("classes", [5, 101])
def test_equals_the_definition(chain, classes):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(14, 3, 9, 12, generator=generator)
    y = torch.tensor([0, 4, 2, 2, 1, 4, 2, 0, 0, 1, 4, 2, 3, 0])  # one class of one sample
    if classes != 5:
        chain.classifier = nn.Linear(12, classes)
        nn.init.normal_(chain.classifier.weight, generator=generator)
    found = score(chain, [(x, y)], [epe_nas()])["epe_nas"]
    assert found == pytest.approx(reference(chain, x, y, classes), rel=1e-3)


def test_equals_the_official_code(chain):
    # VascoLopes/EPE-NAS 22bd3410, search.py: get_batch_jacobian and eval_score_perclass on these inputs.
    x = torch.randn(14, 3, 9, 12, generator=torch.Generator().manual_seed(5))
    y = torch.tensor([0, 4, 2, 2, 1, 4, 2, 0, 0, 1, 4, 2, 3, 0])
    assert score(chain, [(x, y)], [epe_nas()])["epe_nas"] == pytest.approx(92.189871, rel=1e-4)


def test_order_of_samples_does_not_matter_and_labels_do(chain, chain_batch):
    x, y = chain_batch
    plain = score(chain, [(x, y)], [epe_nas()])["epe_nas"]
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    assert score(chain, [(x[order], y[order])], [epe_nas()])["epe_nas"] == pytest.approx(plain, rel=1e-4)
    assert score(chain, [(x, torch.zeros_like(y))], [epe_nas()])["epe_nas"] > 2 * plain


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(6, 9, 12, dtype=torch.int64), r"int64 of shape \(9, 12\)"),
        (torch.zeros(6, 5), r"float32 of shape \(5,\)"),
        (torch.zeros(6), r"float32 of shape \(\)"),
    ],
)
def test_labels_that_are_not_a_class_a_sample_are_refused_in_words(labels, words):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    with pytest.raises(BadInput, match=f"epe_nas .* one class number a sample, and here every sample has {words}"):
        score(network, [(torch.randn(6, 3, 9, 12), labels)], [epe_nas()], loss=lambda z, y: z.sum())
