"""Signals: the first asks, the second insists, the handlers come back."""

import os
import signal
import threading

import pytest

from attnnet.training.interrupt import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_second_insists(number):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop = StopRequest()
    with pytest.raises(KeyboardInterrupt), stop:
        os.kill(os.getpid(), number)
        for _ in range(1000):  # handlers run between bytecodes
            if stop.requested:
                break
        assert stop.requested and stop.signal == number
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), StopRequest():
        assert signal.getsignal(signal.SIGINT) != before
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) == before


def test_a_signal_reaches_those_around_too():
    with StopRequest() as outer:
        with StopRequest() as middle, StopRequest() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                if inner.requested:
                    break
            assert not middle.requested
        assert inner.signal == middle.signal == outer.signal == signal.SIGTERM
        with StopRequest() as later:
            assert later.requested and later.signal == signal.SIGTERM
    with StopRequest() as alone:
        assert not alone.requested


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_handlers_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with StopRequest() as stop:
            seen.append(signal.getsignal(signal.SIGINT))
            stop.request()
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, True]
