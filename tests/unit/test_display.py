"""What is printed where no terminal is."""

from io import StringIO

from rich.console import Console

from sentinel.display import ProgressDisplay
from sentinel.events import Failed, MessageLogged, MetricRecorded, Phase, PhaseStarted, Progressed


def test_without_a_terminal_there_is_a_line_for_each_phase_and_each_tenth():
    text = StringIO()
    with ProgressDisplay(Console(file=text, width=200)) as display:
        display.emit(PhaseStarted(phase=Phase.LOADING))
        display.emit(PhaseStarted(phase=Phase.HEALING, cycle=2))
        display.emit(MetricRecorded(name="healing_loss", value=1.5, step=1))
        for hundredths in range(8, 32):
            display.emit(Progressed(fraction=hundredths / 100))
        display.emit(MessageLogged(text="[said] as it is"))
        display.emit(Failed(error={"message": "[broken]"}))
    lines = text.getvalue().splitlines()
    assert lines[:2] == ["loading", "healing · cycle 2"]
    tenths, said, broken = lines[2:5], *lines[5:]
    left = "about 0:00:01 left"  # the least that is ever told
    assert tenths == [f"healing · cycle 2 · healing_loss 1.5000 · {n}0% · {left}" for n in (1, 2, 3)]
    assert (said, broken) == ("[said] as it is", "[broken]")
