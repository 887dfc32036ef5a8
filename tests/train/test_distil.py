"""Learning from a teacher, against its formula."""

import torch
from torch.nn import functional

from compress.networks import images, lived_in, mobile
from edgewright.task.kinds.classification import Classification
from edgewright.train.distil import distillation

KIND = Classification(tuple("abcdefghij"), {})


def test_distillation_against_its_formula() -> None:
    teacher, student, x = lived_in(mobile(), 1), lived_in(mobile(), 2), images(3, 3, 18, 14)
    targets = functional.one_hot(torch.tensor([1, 7, 2]), 10).float()
    loss = distillation(teacher, KIND, alpha=0.6, temperature=2.0, feature_weight=0.05, features=("stage2",))
    with torch.no_grad():
        one, two = teacher.stage2(teacher.stage1(teacher.stem(x))), student.stage2(student.stage1(student.stem(x)))
        p, q = functional.softmax(teacher(x) / 2, 1), functional.softmax(student(x) / 2, 1)
        kl = (p * (p / q).log()).sum(1).mean()
        task = -(targets * functional.log_softmax(student(x), 1)).sum(1).mean()
        expected = 0.4 * task + 0.6 * 4 * kl + 0.05 * ((one - two) ** 2).mean()
    got = loss(student, x, targets)
    torch.testing.assert_close(got.detach(), expected)
    got.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.stem[0].weight.grad is not None


def test_the_teacher_stays_what_it_was_when_the_student_is_the_same_network() -> None:
    """The usual case: a network learns from itself as it was."""
    network, x, labels = lived_in(mobile(), 3).train(), images(4, 3, 18, 14), torch.tensor([0, 9, 3, 3])
    as_it_was = lived_in(mobile(), 3)
    loss = distillation(network, KIND, alpha=1.0, feature_weight=0.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
        network.eval()
        expected = KIND.distil(network(x), as_it_was(x), 1.0)
        torch.testing.assert_close(loss(network, x, labels), expected)
