"""What all tests share: one torch thread, repeatable hypothesis, the development data, a browser where there is one."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parent.parent

# Several test processes share few cores: one thread each is faster, and sums come out the same everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of whole jobs come first, then others with slow tests: begun last, one would keep one process busy while
    the others have nothing left to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.parent.name != "job", item.path not in slow))


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def not_quiet() -> Iterator[None]:
    """A command that was run in this process with --quiet has silenced it."""
    yield
    from edgewright.core.progress import set_quiet

    set_quiet(False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data: EDGEWRIGHT_DATA, else shared/data beside the repository; skips where there is none."""
    place = Path(os.environ.get("EDGEWRIGHT_DATA") or REPO.parent / "shared" / "data")
    if not place.is_dir():
        pytest.skip("no development data: set EDGEWRIGHT_DATA to its folder")
    return place


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium browser; skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no chromium on this machine")


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory):
    """The RunFolder of a small network that has learned the digits, made once."""
    from made_run import make_digits_run

    return make_digits_run(tmp_path_factory.mktemp("made") / "digits")


@pytest.fixture(scope="session")
def new_tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Data that the network of `digits_run` has not seen: "inverted" digits, and pairs of digits as "other" classes."""
    import numpy as np
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("tasks")
    digits = load_digits()
    x, y = (digits.images * 255 / 16).round().astype(np.uint8)[..., None], digits.target
    pairs = y < 6
    for name, images, labels in (("inverted", 255 - x, y), ("other", x[pairs], y[pairs] // 2)):
        np.savez(
            folder / f"{name}.npz",
            x_train=images[:500], y_train=labels[:500], x_test=images[500:700], y_test=labels[500:700],
        )  # fmt: skip
    return {name: f"arrays:{folder / f'{name}.npz'}" for name in ("inverted", "other")}
