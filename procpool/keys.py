"""Keys, as xterm sends them, and what a program has said about how it wants them. Pure."""

from __future__ import annotations

import re

_NAMED = {
    "Enter": "\r", "Tab": "\t", "Escape": "\x1b", "Space": " ", "BSpace": "\x7f", "BTab": "\x1b[Z",
    "Up": "A", "Down": "B", "Right": "C", "Left": "D", "Home": "H", "End": "F",
    "Insert": "2~", "Delete": "3~", "PageUp": "5~", "PageDown": "6~",
    "F1": "P", "F2": "Q", "F3": "R", "F4": "S", "F5": "15~", "F6": "17~", "F7": "18~", "F8": "19~", "F9": "20~",
    "F10": "21~", "F11": "23~", "F12": "24~",
}  # fmt: skip
_CURSOR = ("Up", "Down", "Right", "Left", "Home", "End")
_MODIFIERS = {"S": 1, "M": 2, "C": 4}
_MODE = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_UNFINISHED = re.compile(rb"\x1b(?:\[(?:\?[0-9;]*)?)?\Z")
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"


class Keyboard:
    """The modes that a program has set on its terminal, read from its output."""

    __slots__ = ("application", "bracketed", "_rest")

    def __init__(self) -> None:
        self.application = False  # cursor keys are sent in another form (DECCKM)
        self.bracketed = False  # pastes are marked as such
        self._rest = b""  # a code that has only begun

    def watch(self, chunk: bytes) -> None:
        """Look for modes in the next bytes of output."""
        if self._rest:
            chunk = self._rest + chunk
        elif b"\x1b" not in chunk:
            return
        for modes, switch in _MODE.findall(chunk):
            for mode in modes.split(b";"):
                if mode == b"1":
                    self.application = switch == b"h"
                elif mode == b"2004":
                    self.bracketed = switch == b"h"
        unfinished = _UNFINISHED.search(chunk[-32:])
        self._rest = unfinished[0] if unfinished else b""

    def paste(self, text: str) -> str:
        """Return what a paste of the text sends; it cannot end itself, and newlines are what Enter sends."""
        text = text.replace("\r\n", "\r").replace("\n", "\r")
        if not self.bracketed:
            return text
        while PASTE_END in text:
            text = text.replace(PASTE_END, "")
        return PASTE_BEGIN + text + PASTE_END


def sequence(key: str, *, application: bool) -> str:
    """Return what a key sends: a character, or a name, with C- (control), M- (meta), S- (shift) before it.

    Raises TypeError or ValueError for what is no key.

    >>> sequence("C-c", application=False), sequence("Up", application=True), sequence("C-Right", application=False)
    ('\\x03', '\\x1bOA', '\\x1b[1;5C')
    """
    if not isinstance(key, str):
        raise TypeError(f"keys must be str, not {type(key).__name__}")
    held = 0
    rest = key
    while len(rest) > 2 and rest[1] == "-" and rest[0] in _MODIFIERS:
        held |= _MODIFIERS[rest[0]]
        rest = rest[2:]
    code = _NAMED.get(rest)
    if code is None:
        if len(rest) != 1:
            raise ValueError(f"keys has no key named {key!r}: a character, or one of {', '.join(_NAMED)}")
        code = rest
    if len(code) > 1 and code[0].isdecimal():  # Delete, F5
        return f"\x1b[{code[:-1]};{held + 1}~" if held else f"\x1b[{code}"
    if rest in _CURSOR or (rest in _NAMED and rest[0] == "F"):
        if held:
            return f"\x1b[1;{held + 1}{code}"
        return f"\x1bO{code}" if application or rest[0] == "F" else f"\x1b[{code}"
    if rest == "Tab" and held == _MODIFIERS["S"]:
        return _NAMED["BTab"]
    if held & _MODIFIERS["C"]:
        code = _control(code, key)
    if held & _MODIFIERS["S"]:
        code = code.upper()
    return "\x1b" + code if held & _MODIFIERS["M"] else code


def _control(code: str, key: str) -> str:
    if code == "?":
        return "\x7f"
    if code == " ":
        return "\0"
    if not code.isascii() or not "@" <= code.upper() <= "_":
        raise ValueError(f"keys has no such key: {key!r}")
    return chr(ord(code.upper()) & 0x1F)
