r"""Classification: each sample belongs to one of K classes.

    loss        -mean_n sum_c q_nc log softmax(y_n)_c,   q = (1 - s) targets + s / K
    distil      mean_n KL(softmax(teacher / T) || softmax(student / T))
    accuracy    percent of the samples whose largest output is their class (top-1)
    balanced_accuracy   the mean over the classes of the percent of each that is found (recall)
    macro_f1    the mean over the classes of 2 tp / (2 tp + fp + fn)

Targets are (N,) int64 in 0..K-1, outputs (N, K). Where one class has two thirds of the training samples or more, a
network that only says it is right on most, so there balanced accuracy decides unless the user says otherwise.

Source of the balanced figure: Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution", ICPR 2010.
Checked against: scikit-learn's balanced_accuracy_score, recall_score and f1_score (tests/task/test_classification.py).
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.core.metric import Metric, Score
from edgewright.core.tensors import Size, TensorSpec
from edgewright.model.head import Head
from edgewright.model.heads.pool import PoolHead
from edgewright.task.augment.mixing import mix
from edgewright.task.confusion import Counts, OverClasses, mean_of_present
from edgewright.task.kind import Kind
from edgewright.task.pictures import Bars, Gallery, Matrix, Picture, Shown, data_uri

LOPSIDED = 2 / 3  # share of the samples in one class, from which balanced accuracy decides
MOST_DRAWN = 40  # classes in a confusion matrix that can be read
MOST_SHOWN = 12
SMALL = 64  # pixels; smaller images are shown enlarged
TOP = 5


class Classification(Kind):
    name = "classification"
    summary = "One of several classes for each sample."

    @property
    def metrics(self) -> tuple[Metric, ...]:
        count = len(self.names)
        return (
            OverClasses("accuracy", count, _answered, lambda found: found.accuracy),
            OverClasses(
                "balanced_accuracy",
                count,
                _answered,
                lambda found: mean_of_present(found.recall),
                ("recall", lambda found: found.recall),
            ),
            OverClasses("macro_f1", count, _answered, lambda found: mean_of_present(found.f1)),
        )

    @property
    def head(self) -> Head:
        return PoolHead(len(self.names))

    def outputs(self, size: Size) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name="logits", shape=(len(self.names),)),)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        return functional.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def distil(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        mine, theirs = (functional.log_softmax(y / temperature, 1) for y in (student, teacher))
        return functional.kl_div(mine, theirs, log_target=True, reduction="batchmean")

    def answers(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1)

    def same(self, expected: Tensor, found: Tensor) -> Score:
        alike = (expected.argmax(1) == found.argmax(1)).double().mean()
        return Score(name="same_class", value=100 * float(alike))

    def guess(self, targets: Tensor) -> dict[str, float]:
        counts = torch.bincount(targets, minlength=len(self.names)).double()
        share = float(counts.max() / counts.sum())
        present = int((counts > 0).sum())
        return {
            "accuracy": 100 * share,
            "balanced_accuracy": 100 / present,
            "macro_f1": 100 * 2 * share / (1 + share) / present,
        }

    def check(self, targets: Tensor, least: int, where: str) -> None:
        """Two classes are needed, and of every class a sample for each part that is still to be split off."""
        if len(self.names) < 2:
            raise BadInput(f"{where}: one class only ('{''.join(self.names)}'); there is nothing to tell apart")
        counts = torch.bincount(targets, minlength=len(self.names)).tolist()
        few = [f"'{name}' has {count}" for name, count in zip(self.names, counts, strict=True) if count < least]
        if few:
            more = f" and {len(few) - 5} more" if len(few) > 5 else ""
            raise BadInput(
                f"{where}: every class needs at least {least} images to split, but {', '.join(few[:5])}{more}; "
                "add images or remove the class"
            )

    def strata(self, targets: Tensor) -> Tensor:
        return targets

    def decides(self, targets: Tensor) -> str:
        return "balanced_accuracy" if self._lopsided(targets) else "accuracy"

    def remarks(self, targets: Tensor) -> list[str]:
        if not self._lopsided(targets):
            return []
        counts = torch.bincount(targets, minlength=len(self.names))
        most, least = int(counts.argmax()), int(counts.argmin())
        return [
            f"'{self.names[most]}' has {counts[most]:,} of the {len(targets):,} training samples, "
            f"'{self.names[least]}' has {counts[least]:,}: balanced accuracy decides, unless --metric says otherwise"
        ]

    def _lopsided(self, targets: Tensor) -> bool:
        return bool(torch.bincount(targets).max() >= LOPSIDED * len(targets))

    def mixed(
        self, inputs: Any, targets: Tensor, generator: torch.Generator, mixup: float, cutmix: float
    ) -> tuple[Any, Tensor]:
        return mix(inputs, targets, len(self.names), generator, mixup, cutmix)

    def tell(self, outputs: Tensor, size: Size, place: Path | None) -> dict[str, Any]:
        probabilities = outputs[0].double().softmax(0)
        order = torch.argsort(probabilities, descending=True, stable=True)[:TOP].tolist()
        ranked = [{"class": self.names[i], "probability": float(probabilities[i])} for i in order]
        return {**ranked[0], "top": ranked}

    def line(self, told: Mapping[str, Any]) -> str:
        return f"{told['class']}\t{told['probability']:.4f}"

    def described(self) -> str:
        return f"tells {len(self.names)} classes apart"

    def reading(self) -> str:
        return f"{len(self.names)} numbers, one a class, the largest for the likeliest (softmax gives probabilities)."

    def pictures(self, inputs: Any, targets: Tensor, answers: Tensor, white: float) -> list[Picture]:
        """The confusion matrix, the recall of each class, and the commonest mistakes."""
        wrong = (targets != answers).nonzero().flatten().tolist()
        pairs = list(zip(targets.tolist(), answers.tolist(), strict=True))
        lead = f"{len(wrong):,} of {len(targets):,} test samples were called something else."
        return [
            *self._matrix(pairs, lead),
            *self._recalls(targets, answers),
            *self._mistakes(inputs, pairs, wrong, white),
        ]

    def _matrix(self, pairs: list[tuple[int, int]], lead: str) -> list[Picture]:
        if len(self.names) > MOST_DRAWN:
            return []
        counts, classes = Counter(pairs), range(len(self.names))
        rows = tuple(tuple(counts[truth, said] for said in classes) for truth in classes)
        return [Matrix(title="Where it errs", lead=lead, names=self.names, counts=rows)]

    def _recalls(self, targets: Tensor, answers: Tensor) -> list[Picture]:
        recall = Counts.none(len(self.names)).plus(answers, targets).recall
        order = [i for i in torch.argsort(recall).tolist() if not recall[i].isnan()][:MOST_DRAWN]
        fewer = f" The {MOST_DRAWN} worst of {len(self.names)}." if len(self.names) > len(order) else ""
        return [
            Bars(
                title="How much of each class is found",
                lead=f"Recall: the share of a class's test samples that were called by its name.{fewer}",
                names=tuple(self.names[i] for i in order),
                values=tuple(float(recall[i]) for i in order),
            )
        ]

    def _mistakes(self, inputs: Any, pairs: list[tuple[int, int]], wrong: list[int], white: float) -> list[Picture]:
        if not isinstance(inputs, Tensor) or inputs.ndim != 4 or not wrong:
            return []
        counts = Counter(pairs[i] for i in wrong)
        wrong.sort(key=lambda i: (-counts[pairs[i]], pairs[i], i))
        items = tuple(
            Shown(
                image=data_uri(inputs[i], white),
                said=self.names[pairs[i][1]],
                truth=f"is {self.names[pairs[i][0]]}",
                small=max(inputs.shape[-2:]) < SMALL,
            )
            for i in wrong[:MOST_SHOWN]
        )
        lead = "From the classes that are confused most often." if len(wrong) > MOST_SHOWN else "All of them."
        return [Gallery(title="What it got wrong", lead=lead, items=items)]


def _answered(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return outputs.argmax(1), targets
