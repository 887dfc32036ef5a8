"""Which recipe suits a task and the epochs there will be."""

import pytest

from edgewright.task.load import load_task
from edgewright.train.recipe import BRIEF, FEW_EPOCHS, HARDLY, Recipe, recipe_for


def _spec(samples: int, side: int = 32):
    spec = load_task("digits").spec
    image = spec.input.model_copy(update={"shape": (3, side, side), "mean": (0.0,) * 3, "std": (1.0,) * 3})
    return spec.model_copy(update={"inputs": (image,), "num_train": samples, "flip": True})


@pytest.mark.parametrize(
    ("epochs", "pad", "erase", "batch", "mixed"),
    [(HARDLY, 2, 0.0, 64, False), (BRIEF, 4, 0.0, 128, False), (FEW_EPOCHS, 4, 0.25, 128, True)],
)
def test_longer_trainings_are_regularised_more(epochs: float, pad: int, erase: float, batch: int, mixed: bool) -> None:
    recipe = recipe_for(_spec(40_000), epochs)
    assert recipe.augment is not None and recipe.augment.flip
    found = (recipe.augment.pad, recipe.augment.erase, recipe.batch_size, recipe.cutmix > 0)
    assert found == (pad, erase, batch, mixed)


def test_images_of_hardly_an_epoch_are_left_as_they_are() -> None:
    assert recipe_for(_spec(40_000), HARDLY - 0.1).augment is None


@pytest.mark.parametrize("epochs", [1.0, 100.0])
def test_few_images_are_learned_in_small_batches(epochs: float) -> None:
    recipe: Recipe = recipe_for(_spec(500), epochs)
    assert (recipe.optimizer, recipe.batch_size) == ("adamw", 32)
