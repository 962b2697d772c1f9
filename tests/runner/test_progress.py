"""What the progress tells."""

import io

from rich.console import Console

from align.runner.progress import Meter


def test_rate_and_time_left():
    now = [0.0]
    out = io.StringIO()
    with Meter(Console(file=out, width=100), total=12, done=4, clock=lambda: now[0]) as meter:
        assert meter.told() == "4/12"
        now[0] = 2.0
        meter.sampling(4, 0.5)
        assert meter.told() == "4/12, 1 a second, 6 s left"
        assert out.getvalue() == ""
        now[0] = 11.0
        meter.committed(failed=True)
        assert out.getvalue() == "5/12, 0.18 a second, 33 s left, 1 failed\n"
        meter.sampling(0, 1.0)
        now[0] = 400.0
        assert meter.told() == "5/12, 400 s each, 46 min 40 s left, 1 failed"
    assert out.getvalue().count("\n") == 2


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    with Meter(Console(file=out, force_terminal=True, width=100), total=2, done=0) as meter:
        meter.committed(failed=False)
        meter.say("a [bold]line")
        assert meter._bar is not None
    assert "a [bold]line" in out.getvalue()
