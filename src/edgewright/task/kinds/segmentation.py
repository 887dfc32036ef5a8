r"""Segmentation: each pixel belongs to one of K classes, or counts for nothing (the ignore value).

    loss        CE + (1 - Dice),   CE = -mean over pixels of sum_c q_c log softmax(y)_c
                Dice = mean over the classes c that are there of (2 sum p_c t_c + 1) / (sum p_c + sum t_c + 1)
    distil      mean over pixels of KL(softmax(teacher / T) || softmax(student / T))
    mean_iou    over one confusion matrix of the whole part: the mean of tp / (tp + fp + fn) over the classes that are
                there or were said
    pixel_accuracy   percent of the pixels;   mean_dice   the mean of 2 tp / (2 tp + fp + fn)

Targets are maps (N, H, W) of class numbers, outputs (N, K, h, w) at the stride of the head. The loss compares outputs
that are brought to the targets' size bilinearly. What ships is the other order: the largest output of each place, then
the nearest place for each pixel, which is a hundred times cheaper than the reverse on a large map; figures and gates go
through that.

Source of the Dice loss: Milletari et al., "V-Net", 3DV 2016, arXiv:1606.04797 (here with linear denominators).
Checked against: scikit-learn's jaccard_score and f1_score over all pixels (tests/task/test_segmentation.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.core.files import written_whole
from edgewright.core.metric import Metric, Score
from edgewright.core.tensors import Size, TensorSpec
from edgewright.model.head import Head
from edgewright.model.heads.pyramid import PyramidHead
from edgewright.task.confusion import Counts, OverClasses, mean_of_present
from edgewright.task.kind import Kind
from edgewright.task.pictures import Bars, Gallery, Picture, Shown, data_uri, overlaid

IGNORE = 255
PLACES = 8  # of each map that scores of features look at
SHOWN = 6  # masks at each end
COLOURS = ((0, 0, 0), (224, 80, 60), (60, 140, 224), (70, 180, 90), (235, 180, 50), (150, 90, 200), (60, 190, 190))


class Segmentation(Kind):
    """facts: `palette`, the colour of each class in the masks that were read, where they had some."""

    name = "segmentation"
    summary = "One of several classes for each pixel."
    aligned = True
    fill = float(IGNORE)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        count = len(self.names)
        return (
            OverClasses("mean_iou", count, _answered, lambda f: mean_of_present(f.iou), ("iou", lambda f: f.iou)),
            OverClasses("pixel_accuracy", count, _answered, lambda found: found.accuracy),
            OverClasses("mean_dice", count, _answered, lambda found: mean_of_present(found.f1)),
        )

    @property
    def head(self) -> Head:
        return PyramidHead(len(self.names))

    def outputs(self, size: Size) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name="logits", shape=(len(self.names), None, None)),)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        targets = targets.long()
        logits = _at(outputs, targets).float()
        known = targets != IGNORE
        if not known.any():
            return logits.sum() * 0  # a batch of nothing teaches nothing
        cross = functional.cross_entropy(logits, targets, ignore_index=IGNORE, label_smoothing=smoothing)
        return cross + 1 - _dice(logits, targets.where(known, 0), known)

    def distil(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        mine, theirs = (functional.log_softmax(y / temperature, 1) for y in (student, teacher))
        return functional.kl_div(mine, theirs, log_target=True, reduction="none").sum(1).mean()

    def answers(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1).to(torch.uint8)

    def same(self, expected: Tensor, found: Tensor) -> Score:
        alike = (expected.argmax(1) == found.argmax(1)).double().mean()
        return Score(name="same_pixels", value=100 * float(alike))

    def guess(self, targets: Tensor) -> dict[str, float]:
        true = targets[targets != IGNORE].long()
        best = torch.full_like(true, int(torch.bincount(true, minlength=len(self.names)).argmax()))
        counts = Counts.none(len(self.names)).plus(best, true)
        return {metric.name: metric.value(counts) for metric in self.metrics}

    def check(self, targets: Tensor, least: int, where: str) -> None:
        """Every class must be on some pixel, and there must be a map for each part that is still to be split off."""
        if len(self.names) < 2:
            raise BadInput(f"{where}: one class only ('{''.join(self.names)}'); there is nothing to tell apart")
        if len(targets) < least:
            raise BadInput(f"{where}: {len(targets)} images are too few to split into {least} parts; add some")
        seen = {int(value) for mask in targets for value in mask.unique()}
        absent = [name for index, name in enumerate(self.names) if index not in seen]
        if absent:
            raise BadInput(f"{where}: no pixel of the training masks is '{absent[0]}'; remove the class or add images")

    def tell(self, outputs: Tensor, size: Size, place: Path | None) -> dict[str, Any]:
        mask = _nearest(self.answers(outputs), size)[0]
        shares = torch.bincount(mask.flatten().long(), minlength=len(self.names)) / mask.numel()
        told = {name: round(100 * float(share), 4) for name, share in zip(self.names, shares, strict=True)}
        return {"mask": None if place is None else str(self._written(mask, place)), "percent": told}

    def line(self, told: Mapping[str, Any]) -> str:
        most = sorted(told["percent"].items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {share:.1f} %" for name, share in most if share > 0)
        return f"{told['mask'] or '-'}\t{shares}"

    def examples(
        self, maps: Sequence[Tensor], targets: Tensor, generator: torch.Generator
    ) -> tuple[Sequence[Tensor], Tensor]:
        """Up to 8 places of each sample whose pixel counts, drawn at random on the first of the maps."""
        if maps[0].ndim != 4:
            raise BadInput("scores of features need maps before the last layer, to tell pixels; choose another score")
        size = (maps[0].shape[2], maps[0].shape[3])
        true = _nearest(targets, size).flatten(1)
        drawn = torch.rand(true.shape, generator=generator).to(true.device).masked_fill(true == IGNORE, -1.0)
        lots, places = drawn.topk(min(PLACES, drawn.shape[1]), 1)
        rows = torch.arange(len(true), device=true.device).unsqueeze(1).expand_as(places)[lots >= 0]
        where = places[lots >= 0]
        return [_nearest(one, size).flatten(2)[rows, :, where] for one in maps], true[rows, where].long()

    def described(self) -> str:
        return f"tells {len(self.names)} classes apart, pixel by pixel"

    def pictures(self, inputs: Any, targets: Tensor, answers: Tensor, white: float) -> list[Picture]:
        """The figure of each class, and the masks that are furthest from and nearest to the truth."""
        said = _nearest(answers, (targets.shape[-2], targets.shape[-1]))
        iou = Counts.none(len(self.names)).plus(*_known(said, targets)).iou
        each = Bars(
            title="How well each class is covered",
            lead="Intersection over union of all its pixels in the test part.",
            names=self.names,
            values=tuple(float(value.nan_to_num(0.0)) for value in iou),
        )
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            return [each]
        of_each = [self._iou(said[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]
        order = sorted((i for i in range(len(of_each)) if of_each[i] == of_each[i]), key=of_each.__getitem__)
        lead = "Image, truth, and what the network says; the mean IoU of that image."
        ends = {"Where it is furthest off": order[:SHOWN], "Where it is best": order[::-1][:SHOWN]}
        galleries = []
        for title, chosen in ends.items():
            items = tuple(self._shown(inputs[i], targets[i], said[i], white, of_each[i]) for i in chosen)
            galleries += [Gallery(title=title, lead=lead, items=items)] if items else []
        return [*galleries, each]

    def _iou(self, said: Tensor, true: Tensor) -> float:
        return mean_of_present(Counts.none(len(self.names)).plus(*_known(said, true)).iou)

    def _shown(self, image: Tensor, true: Tensor, said: Tensor, white: float, iou: float) -> Shown:
        three = [overlaid(image, mask, COLOURS, white) for mask in (None, true, said)]
        return Shown(image=data_uri(torch.cat(three, 2), largest=480), said=f"{iou:.1f} %", wide=True)

    def _written(self, mask: Tensor, place: Path) -> Path:
        """A PNG of class numbers with a palette, so that it is both data and picture."""
        path = place.with_suffix(".png")
        image = Image.fromarray(mask.numpy().astype(np.uint8), "P")
        colours = self.facts.get("palette") or [COLOURS[i % len(COLOURS)] for i in range(len(self.names))]
        image.putpalette([int(part) for colour in colours for part in colour])
        with written_whole(path) as part:
            image.save(part, "PNG")
        return path


def _at(outputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs at the targets' size."""
    size = targets.shape[-2:]
    if outputs.shape[-2:] == size:
        return outputs
    return functional.interpolate(outputs, size=size, mode="bilinear", align_corners=False)


def _dice(logits: Tensor, true: Tensor, known: Tensor) -> Tensor:
    shares = logits.softmax(1) * known.unsqueeze(1)
    wanted = functional.one_hot(true, logits.shape[1]).movedim(-1, 1) * known.unsqueeze(1)
    axes = (0, 2, 3)
    both, there = (shares * wanted).sum(axes), wanted.sum(axes)
    dice = (2 * both + 1) / (shares.sum(axes) + there + 1)
    return dice[there > 0].mean()


def _nearest(answers: Tensor, size: Size) -> Tensor:
    """(N, h, w) answers, or (N, C, h, w), at another size: of each pixel the nearest place."""
    if tuple(answers.shape[-2:]) == tuple(size):
        return answers
    maps = answers.float() if answers.ndim == 4 else answers.float().unsqueeze(1)
    return (
        functional.interpolate(maps, size=size, mode="nearest-exact").view(*answers.shape[:-2], *size).to(answers.dtype)
    )


def _known(said: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Answers and truths of the pixels that count."""
    counts = true != IGNORE
    return said[counts].long(), true[counts].long()


def _answered(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return _known(_nearest(outputs.argmax(1), (targets.shape[-2], targets.shape[-1])), targets)
