import pytest
import torch
from torch.nn import functional

from edgewright.task.augment.default import default_augment, moving
from edgewright.task.augment.image import Augment, Follow
from edgewright.task.augment.mixing import mix
from edgewright.task.base import batches
from edgewright.task.load import load_task


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 60, channels: int = 3, height: int = 9, width: int = 7) -> torch.Tensor:
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(9))


def shifted(image: torch.Tensor, down: int, across: int, mirror: bool, fill: int, pad: int) -> torch.Tensor:
    """The plain way: pad, cut, turn round."""
    padded = functional.pad(image, (pad,) * 4, value=fill)
    height, width = image.shape[-2:]
    cut = padded[:, down : down + height, across : across + width]
    return cut.flip(-1) if mirror else cut


def test_each_crop_is_one_of_the_plain_shifts_and_all_occur():
    images = noise(count=1, height=5, width=6).expand(600, -1, -1, -1)
    out = Augment(pad=1, flip=True, fill=(7.0,))(images, seeded())
    assert out.dtype == torch.uint8
    plain = [
        shifted(images[0], down, across, mirror, 7, 1)
        for down in range(3)
        for across in range(3)
        for mirror in (False, True)
    ]
    which = torch.stack([(out == one).flatten(1).all(1) for one in plain])
    assert (which.sum(0) == 1).all()
    assert (which.sum(1) > 10).all()  # 600 / 18 = 33 expected of each


def test_flip_alone_flips_half():
    images = noise(400)
    out = Augment(flip=True)(images, seeded())
    same, turned = (out == images).flatten(1).all(1), (out == images.flip(-1)).flatten(1).all(1)
    assert (same | turned).all()
    assert 150 < same.sum() < 250
    assert torch.equal(Augment()(images, seeded()), images)


def test_whole_area_is_the_antialiased_resize():
    images = noise(5, 2, 20, 20)
    out = Augment(area=(1, 1), ratio=(1, 1))(images, seeded(), (8, 8))
    expected = functional.interpolate(images.float(), (8, 8), mode="bilinear", antialias=True)
    assert torch.allclose(out, expected, atol=1e-3)
    assert torch.allclose(Augment(area=(1, 1), ratio=(1, 1))(images, seeded()), images.float(), atol=1e-3)


def test_resized_crop_of_a_ramp_keeps_its_slope():
    ramp = (torch.arange(40.0) * 3).view(1, 1, 1, 40).expand(200, 1, 40, 40)
    out = Augment(area=(0.2, 0.5), flip=True)(ramp, seeded(), (40, 40))
    assert out.shape == (200, 1, 40, 40)
    inner = out[:, 0, 0, 2:-2]
    slope = inner.diff(dim=1)
    assert torch.allclose(slope, slope.mean(1, keepdim=True).expand_as(slope), atol=1e-3)
    # width = sqrt(area * ratio) of the image's: from sqrt(0.2 * 0.75) to sqrt(0.5 * 4 / 3)
    steps = slope.mean(1).abs() / 3
    assert steps.min() >= 0.387 - 1e-3
    assert steps.max() <= 0.817 + 1e-3
    assert 60 < (slope.mean(1) < 0).sum() < 140


def test_rotation_is_about_the_centre_and_at_most_as_asked():
    images = torch.zeros((300, 1, 33, 33))
    images[:, :, 16, 26:31] = 1  # a bar to the right of the centre
    out = Augment(rotate=20)(images, seeded())
    at = torch.arange(33.0) - 16
    mass = out.sum((1, 2, 3))
    x, y = (out * at.view(1, 1, 1, -1)).sum((1, 2, 3)) / mass, (out * at.view(1, 1, -1, 1)).sum((1, 2, 3)) / mass
    assert torch.allclose((x.square() + y.square()).sqrt(), torch.tensor(12.0), atol=0.2)
    angle = torch.rad2deg(torch.atan2(y, x))
    assert angle.abs().max() <= 20.5
    assert angle.max() > 15
    assert angle.min() < -15


def test_zoom_and_shift_move_a_square_as_asked():
    images = torch.zeros((300, 1, 40, 40))
    images[:, :, 10:30, 10:30] = 1
    zoomed = Augment(zoom=0.2)(images, seeded()).sum((1, 2, 3)).sqrt() / 20
    assert zoomed.min() == pytest.approx(0.8, abs=0.02)
    assert zoomed.max() == pytest.approx(1.2, abs=0.02)
    moved = Augment(pad=3, rotate=1e-6)(images, seeded())
    place = (moved.sum((1, 2)) * (torch.arange(40) - 19.5)).sum(1) / moved.sum((1, 2, 3))
    assert place.abs().max() <= 3.01
    assert place.abs().max() > 2.8


def test_outside_is_filled():
    images = torch.full((50, 2, 8, 8), 9, dtype=torch.uint8)
    for augment in (Augment(pad=3, fill=(9.0,)), Augment(pad=2, rotate=30, zoom=0.5, fill=(9.0, 9.0))):
        assert torch.allclose(augment(images, seeded()).float(), torch.tensor(9.0))


def test_erasing_takes_a_rectangle_from_the_share_asked():
    images = torch.full((500, 3, 30, 40), 200, dtype=torch.uint8)
    out = Augment(erase=0.4, erase_area=(0.1, 0.2), fill=(1.0, 2.0, 3.0))(images, seeded())
    gone = (out != 200).any(1)
    share = gone.flatten(1).float().mean(1)
    hit = share > 0
    assert 150 < hit.sum() < 250
    assert share[hit].min() > 0.08
    assert share[hit].max() < 0.23
    box = gone.any(2).sum(1) * gone.any(1).sum(1)
    assert torch.equal(box, gone.sum((1, 2)))  # one whole rectangle
    assert out[hit][gone[hit].unsqueeze(1).expand(-1, 3, -1, -1)].unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "augment",
    [Augment(pad=2, flip=True, erase=0.5), Augment(area=(0.3, 1), flip=True), Augment(pad=1, rotate=9, zoom=0.1)],
    ids=["crop", "resized", "affine"],
)
def test_same_seed_same_images_and_nothing_else_is_touched(augment):
    images = noise()
    copy, state = images.clone(), torch.get_rng_state()
    one, two = augment(images, seeded(3)), augment(images, seeded(3))
    assert torch.equal(one, two)
    assert not torch.equal(one, augment(images, seeded(4)))
    assert torch.equal(images, copy)
    assert torch.equal(state, torch.get_rng_state())


def resized(spec, side: int):
    only = spec.input.model_copy(update={"shape": (1, side, side)})
    return spec.model_copy(update={"inputs": (only,), "flip": True})


def test_defaults_suit_the_task():
    digits = load_task("digits")
    augment = default_augment(digits.spec)
    assert (augment.pad, augment.flip, augment.area) == (1, False, None)
    small = default_augment(resized(digits.spec, 32))
    assert (small.pad, small.flip) == (4, True)
    large = default_augment(resized(digits.spec, 160))
    assert large.area is not None
    assert large.flip
    x, y = next(batches(digits.train, digits.spec, batch_size=50, shuffle=1, augment=moving(augment, digits.spec)))
    plain, same = next(batches(digits.train, digits.spec, batch_size=50, shuffle=1))
    assert torch.equal(y, same)
    assert not torch.equal(x, plain)
    assert functional.cosine_similarity(x.flatten(1), plain.flatten(1)).mean() > 0.4  # still the same digits


def test_one_geometry_only():
    with pytest.raises(ValueError, match="area cannot be combined"):
        Augment(area=(0.5, 1), pad=4)


def one_colour(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i is all i; its label is i: so a mixed label can be read off the pixels."""
    y = torch.arange(count)
    return y.float().view(-1, 1, 1, 1).expand(-1, 3, 10, 12).clone(), y


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_labels_are_mixed_in_proportion_to_pixels(mixup, cutmix):
    x, y = one_colour()
    for seed in range(20):
        mixed, soft = mix(x, y, 16, seeded(seed), mixup, cutmix)
        assert torch.allclose(soft.sum(1), torch.ones(16))
        assert torch.allclose((soft * y).sum(1), mixed.mean((1, 2, 3)), atol=1e-4)
        assert torch.equal(x, one_colour()[0])


def test_cutmix_makes_no_new_values_and_mixup_no_seams():
    x, y = one_colour()
    cut, _ = mix(x, y, 16, seeded(1), 0, 1)
    assert set(cut.unique().tolist()) <= set(y.tolist())
    blended, _ = mix(x, y, 16, seeded(1), 1, 0)
    assert torch.equal(blended.amin((1, 2, 3)), blended.amax((1, 2, 3)))


def test_no_mixing_is_one_hot():
    x, y = one_colour()
    same, soft = mix(x, y, 20, seeded(), 0, 0)
    assert same is x
    assert torch.equal(soft, functional.one_hot(y, 20).float())


WAYS = [
    Augment(pad=2, flip=True),
    Augment(pad=1, rotate=25, zoom=0.2, flip=True),
    Augment(area=(0.3, 0.9), flip=True),
]


@pytest.mark.parametrize("augment", WAYS, ids=["crop", "affine", "resized"])
def test_what_lies_on_an_image_moves_with_it(augment):
    """Of a map with two even halves and an image that shows it, both move alike but for the seam and the border."""
    mask = torch.zeros(40, 21, 26, dtype=torch.int64)
    mask[:, 7:, 4:] = 3
    images = (mask.unsqueeze(1) * 60).to(torch.uint8).expand(-1, 2, -1, -1).contiguous()
    moved, follow = augment.moved(images, seeded(2), (21, 26), Follow(mask, 255))
    assert follow is not None and follow.dtype == torch.int64 and follow.shape == mask.shape
    assert set(follow.unique().tolist()) <= {0, 3, 255}
    inside = follow != 255
    off = (moved[:, 0].float() / 60 - follow).abs() > 1.6  # on the other side of the seam
    assert (off & inside).float().sum() / inside.sum() < 0.01
    assert not torch.equal(follow, mask)
    assert torch.equal(augment.moved(images, seeded(2), (21, 26))[0], moved)


def test_a_shift_brings_the_fill_in_from_outside():
    mask = torch.ones(50, 9, 7, dtype=torch.int64)
    _, follow = Augment(pad=3).moved(noise(50), seeded(), None, Follow(mask, 255))
    assert follow is not None
    assert 0.1 < (follow == 255).float().mean() < 0.6
    assert (follow[:, 4, 3] == 1).all()  # the middle is never outside


def test_all_maps_of_a_tree_move_alike_and_vectors_stay():
    spec = load_task("digits").spec
    inputs = {"a": noise(8, 3), "v": torch.rand(8, 5), "b": noise(8, 1).expand(-1, 1, -1, -1)}
    inputs["b"] = inputs["a"][:, :1].clone()
    change = moving(Augment(pad=2, flip=True), spec)
    assert change is not None
    moved, targets = change(inputs, torch.arange(8), seeded(1), (9, 7))
    assert list(moved) == ["a", "v", "b"]
    assert torch.equal(moved["b"], moved["a"][:, :1])
    assert torch.equal(moved["v"], inputs["v"])
    assert not torch.equal(moved["a"], inputs["a"])
    assert targets.tolist() == list(range(8))
