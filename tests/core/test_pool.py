import math
import os
import signal
import subprocess
import sys
import time

import pytest

from edgewright.core import progress
from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.pool import pool
from edgewright.core.ray_pool import explained


def slow_square(x: int) -> int:
    time.sleep(0.05 * (x % 3 == 0))
    return x * x


def fail(x: int) -> int:
    raise ValueError(f"item {x}")


def vanish(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def draws(_: int) -> bool:
    return progress._enabled


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    with pool(workers) as workers_pool:
        assert list(workers_pool.imap(slow_square, range(7))) == [x * x for x in range(7)]


def test_an_error_in_a_worker_reaches_the_caller():
    with pytest.raises(ValueError, match="item 1"), pool(2) as two:
        list(two.imap(fail, [1, 2]))


def test_a_worker_that_is_killed_is_one_sentence():
    with pytest.raises(EdgewrightError, match="worker process was ended"), pool(2) as two:
        list(two.imap(vanish, [1]))


def test_workers_leave_the_terminal_to_the_parent():
    with pool(2) as two:
        assert list(two.imap(draws, [1])) == [False]


PARENT = """
import os, sys, time
from edgewright.core.pool import pool
def pid(_):
    time.sleep(0.2)
    return os.getpid()
if __name__ == "__main__":
    with pool(2) as two:
        print(*set(two.imap(pid, range(4))), flush=True)
        time.sleep(60)
"""


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_an_error_in_a_worker_of_ray_is_its_own_and_a_missing_file_names_the_shared_disk():
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with pool(ray="local") as cluster:
        with pytest.raises(ValueError, match=r"^factorial\(\) not defined for negative values$"):
            list(cluster.imap(math.factorial, [3, -1]))
        with pytest.raises(EdgewrightError, match="cannot see /nowhere/batches: the run folder must lie"):
            list(cluster.imap(os.stat, ["/nowhere/batches"]))


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (FileNotFoundError(2, "No such file", "/there/x"), "a worker of the Ray cluster cannot see /there/x"),
        (FileNotFoundError("No such file or directory: /there/y\nat line 3"), "cannot see /there/y: the run folder"),
        (ModuleNotFoundError("No module named 'edgewright'", name="edgewright"), "lacks edgewright: install"),
    ],
)
def test_faults_of_a_cluster_are_one_sentence(cause, words):
    told = explained(cause)
    assert isinstance(told, EdgewrightError)
    assert words in str(told)
    assert "\n" not in str(told)


def test_other_errors_of_a_worker_stay_what_they_are():
    cause = BadInput("flowers: no images")
    assert explained(cause) is cause


@pytest.mark.slow
def test_a_ray_pool_gives_the_same_in_the_same_order():
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with pool(ray="local") as cluster:
        # A function of the standard library: a cluster's workers cannot import this file.
        assert list(cluster.imap(math.factorial, range(7))) == [math.factorial(x) for x in range(7)]
