"""What a process's terminal shows: its output, fed to an emulator when somebody looks."""

from __future__ import annotations

import re
from typing import Any, Callable

from procpool.child import Child
from procpool.guard import Guard
from procpool.output.buffer import Position
from procpool.snapshot import Screen
from procpool.stdin import Message

# What the emulator would show as text, or take for something else: strings to the terminal, and control sequences with
# a private or an intermediate byte that it does not know.
_FOREIGN = re.compile(
    r"\x1b[PX^_][^\x1b\x07]*(?:\x1b\\|\x07)"
    r"|\x1b\[(?:[<=>][0-?]*[ -/]*[@-~]|[0-?]*[ -/]+[@-~]|\?[0-?]*[^0-?hlJKc])"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[PX^_\]][^\x1b\x07]*\x1b?|[ -/]*)?\Z")
_PIECE = re.compile(r"\x1b\[[0-?]*[@-~]?|\x1b[^\x1b\[]?|[^\x1b]+")
MOST_UNFINISHED = 4096


class Emulator:
    """A terminal's screen, as far as its output has been looked at."""

    def __init__(self, child: Child) -> None:
        try:
            import pyte
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "screen() needs the library pyte: pip install 'procpool[screen]'", name=error.name
            ) from None
        self._child = child
        # Guards the rest. Held while output is fed to the emulator, and, the one exception to the rule, while the
        # process's lock is taken for a look at its output.
        self._guard = Guard()
        self._make_screen: Callable[[int, int], Any] = pyte.Screen
        self._make_stream: Callable[[Any], Any] = pyte.Stream
        self._width: Callable[[str], int] = pyte.screens.wcwidth
        self._begin()

    def _begin(self) -> None:
        self._answers: list[str] = []
        self._screen = self._make_screen(*reversed(self._child.size))
        self._screen.write_process_input = self._answers.append
        self._stream = self._make_stream(self._screen)
        self._positions = dict.fromkeys(self._child.buffers, Position())
        self._rest = ""
        self._dropped = 0
        self._torn = False  # Ctrl-C came in the middle of a look

    def look(self) -> Screen:
        """Feed what came since the last look, answer what the program asked the terminal, and return what it shows."""
        child = self._child
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            torn = self._torn
            if torn:
                self._begin()
            self._torn = True
            view = child.look_alone(self._positions)
            output = child.render(view)
            self._positions = view.ends
            self._dropped += output.dropped.stdout
            text = self._rest + output.text
            unfinished = _UNFINISHED.search(text, max(len(text) - MOST_UNFINISHED, 0))
            self._rest = unfinished[0] if unfinished else ""
            text = text[: len(text) - len(self._rest)]
            rows, cols = child.size
            if (self._screen.lines, self._screen.columns) != (rows, cols):
                self._screen.resize(rows, cols)
            self._feed(_FOREIGN.sub("", text))
            answers, self._answers[:] = "".join(self._answers), []
            if torn:
                answers = ""  # to what was fed before
            found = Screen(
                tuple(self._row(number).rstrip() for number in range(rows)),
                (self._screen.cursor.y, self._screen.cursor.x),
                (rows, cols),
                self._dropped,
            )
            self._torn = False
        if answers and child.stdin is not None:
            child.stdin.put(Message(answers.encode()))
        return found

    def _row(self, number: int) -> str:
        """Return what a row shows; of a wide character that was half written over, nothing (`display` fails on it)."""
        line = self._screen.buffer[number]
        cells = [line[column].data for column in range(self._screen.columns)]
        wide = [self._width(cell[:1]) == 2 for cell in cells]
        return "".join(
            cell if (cells[at + 1 : at + 2] == [""] or not wide[at]) and (cell or wide[:at][-1:] == [True]) else " "
            for at, cell in enumerate(cells)
        )

    def _feed(self, text: str) -> None:
        """Feed text, code by code: one that the emulator fails on is left out."""
        for piece in _PIECE.findall(text):
            try:
                self._stream.feed(piece)
            except Exception:  # of any kind: what programs send is beyond all bounds
                self._stream = self._make_stream(self._screen)
