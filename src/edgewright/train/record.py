"""What is told of a training: as it goes, and at its end."""

import math
from typing import Any

from pydantic import AliasChoices, Field, model_validator

from edgewright.core.data import Frozen
from edgewright.core.metric import Score
from edgewright.core.result import VAL
from edgewright.train.precision import Precision


class Record(Frozen):
    """Of a training that had done so many steps, `epoch` passes over the data. progress: 0 to 1.   lr: of the last
    step; of a fine-tuning schema 1 kept neither.   train_loss: mean over the steps since the record before, None where
    there were none.   val, val_loss: the figure that decides and the kind's loss there, None where val was not looked
    at.   seconds: since the start.   precision: of the last step."""

    epoch: float
    step: int
    progress: float | None = None
    lr: float | None = None
    train_loss: float | None
    val: Score | None = Field(validation_alias=VAL)
    val_loss: float | None = None
    seconds: float
    precision: Precision = "float32"

    @model_validator(mode="before")
    @classmethod
    def _as_schema_1_had_it(cls, data: Any) -> Any:
        """A loss of 0 stood for none."""
        if isinstance(data, dict) and "val_accuracy" in data and data.get("train_loss") == 0:
            return data | {"train_loss": None}
        return data

    @property
    def rank(self) -> tuple[float, float]:
        """Greater is better: the figure, and between equals, of which a small val part gives many, the smaller loss."""
        worst = (-math.inf, -math.inf)
        return worst if self.val is None or self.val_loss is None else (self.val.rank, -self.val_loss)


class Trained(Frozen):
    """What a training was. val: the figure that decides, of the weights that were kept.   samples_per_second: while
    learning, all overheads but looks and checkpoints included, of this process; of a fine-tuning schema 1 kept none.
    stopped: why it ended before its time, or None."""

    history: tuple[Record, ...]
    val: Score = Field(validation_alias=VAL)
    seconds: float
    epochs: float
    steps: int
    samples_per_second: float | None = Field(
        default=None, validation_alias=AliasChoices("samples_per_second", "images_per_second")
    )
    stopped: str | None = None

    @property
    def looks(self) -> tuple[Record, ...]:
        """The records that say what was seen on val."""
        return tuple(record for record in self.history if record.val is not None)
