"""Libraries that talk are silenced; nobody else is."""

import logging
import os
import sys
import threading
import warnings

from edgewright.core.quiet import silent


def test_what_this_thread_prints_logs_and_warns_is_lost_and_what_others_print_is_not(capsys, recwarn, caplog):
    def other() -> None:
        print("of another")

    with silent():
        print("lost")
        sys.stdout.write("lost as well")
        logging.getLogger("library").warning("lost")
        warnings.warn("lost", stacklevel=1)
        with silent():
            print("lost")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        print("lost", flush=True)
    print("after")
    logging.getLogger("library").warning("told")
    assert capsys.readouterr().out == "of another\nafter\n"
    assert [record.message for record in caplog.records] == ["told"]
    assert not recwarn.list


def test_two_threads_leave_things_as_they_were_whoever_ends_first():
    before = (sys.stdout, logging.root.manager.disable, warnings.filters[:])
    begun, ended = threading.Event(), threading.Event()

    def other() -> None:
        with silent():
            begun.set()
            ended.wait(20)

    thread = threading.Thread(target=other)
    with silent():
        thread.start()
        assert begun.wait(20)
    assert logging.root.manager.disable == logging.ERROR  # the other one is not done
    ended.set()
    thread.join()
    assert (sys.stdout, logging.root.manager.disable, warnings.filters[:]) == before


def test_what_is_written_from_c_meanwhile_is_not_touched(capfd):
    with silent():
        os.write(1, b"from C\n")
    assert capfd.readouterr().out == "from C\n"
