"""Text to be shown: without a terminal's escape codes, its lines as they stood when they ended; cut to size. Pure."""

from __future__ import annotations

import re

# Control sequences (ECMA-48), strings to the terminal (titles, links), and other escapes; ends may be missing.
_CODE = re.compile(
    r"\x1b\[(?P<numbers>[0-?]*)(?P<inter>[ -/]*)(?P<final>[@-~]?)"
    r"|\x1b[\]PX^_](?:[^\x07\x1b\n]|\x1b(?!\\))*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x0d\x0e-\x1a\x1c-\x1f\x7f]"
)


MOST_COLUMNS = 10_000  # to which codes widen a line


def plain(text: str) -> str:
    r"""Return text without escape codes, each line as a terminal shows it in the end.

    A line is what was written over it: `\r`, `\b` and the codes that move within a line, or erase and insert in it,
    are carried out. Colours, titles and modes are left out, and so are codes that move between lines.

    >>> plain("\x1b[32mok\x1b[0m\n 10%\r100%\n")
    'ok\n100%\n'
    """
    if "\x1b" not in text and not _CODE.search(text):
        return text
    return "\n".join(_line(line) for line in text.split("\n"))


def _line(text: str) -> str:
    text = text.removesuffix("\r")
    if not _CODE.search(text):
        return text
    cells: list[str] = []
    column = 0
    at = 0
    for code in _CODE.finditer(text):
        column = _put(cells, column, text[at : code.start()])
        at = code.end()
        column = _obey(cells, column, code)
    _put(cells, column, text[at:])
    return "".join(cells)


def _put(cells: list[str], column: int, text: str) -> int:
    """Write text over the cells of a line; return the column behind it. A wide character's second cell is empty."""
    if not text:
        return column
    cells.extend(" " * (column - len(cells)))
    if "" in cells[column : column + 1]:
        cells[column - 1] = " "
    new = list(text) if text.isascii() else _cells(text)
    end = column + len(new)
    if "" in cells[end : end + 1]:
        cells[end] = " "
    cells[column:end] = new
    return end


def _cells(text: str) -> list[str]:
    """Return what stands in each cell; what joins the character before it has none of its own."""
    import unicodedata  # text that is not ASCII, and has codes in it, is rare

    cells: list[str] = []
    for char in text:
        if cells and unicodedata.category(char) in ("Mn", "Me", "Cf"):
            cells[-1 if cells[-1] else -2] += char
        else:
            cells.append(char)
            if unicodedata.east_asian_width(char) in "WF":
                cells.append("")
    return cells


def _obey(cells: list[str], column: int, code: re.Match[str]) -> int:
    """Carry out a code; return the column."""
    what = code["final"] or code[0]
    if what == "\r":
        return 0
    if what == "\b":
        return max(column - 1, 0)
    if code["inter"] or not (code["numbers"] or "0").isdecimal() or not code["final"]:
        return column
    number = int(code["numbers"][:6] or 0)
    count = min(max(number, 1), 1000)
    if what == "C":
        return min(column + count, MOST_COLUMNS)
    if what == "D":
        return max(column - count, 0)
    if what == "G":
        return count - 1
    if what == "J":
        if number == 0:
            del cells[column:]  # and the lines below, where there is nothing yet
    elif what == "K":
        if number == 0:
            del cells[column:]
        elif number == 1:
            cells[: column + 1] = " " * min(column + 1, len(cells))
        elif number == 2:
            cells.clear()
    elif what == "P":
        del cells[column : column + count]
    elif what == "@" and column < len(cells):
        cells[column:column] = " " * min(count, max(MOST_COLUMNS - len(cells), 0))
    elif what == "X":
        cells[column : column + count] = " " * len(cells[column : column + count])
    return column


def without_echo(text: str, sent: str) -> str:
    """Return plain text without the line, or lines, with which a terminal begins it as they were typed.

    Of several lines each later one may stand behind a prompt of its own, which goes with it.
    """
    at = 0
    prompts: set[str] = set()
    for number, line in enumerate(sent.split("\n")):
        end = text.find("\n", at)
        if end < 0:
            break
        shown = text[at:end]
        if number == 0:
            # A terminal that breaks a long line may pad it, and shows a tab as spaces.
            if "".join(shown.split()) != "".join(line.split()):
                break
        else:
            prompt = shown[: len(shown) - len(line)] if line else shown
            if not shown.endswith(line) or (not line.strip() and prompts and prompt.strip() not in prompts):
                break
            prompts.add(prompt.strip())
        at = end + 1
    return text[at:]


def clipped(text: str, chars: int) -> tuple[str, int]:
    """Return at most `chars` characters of a text, its head and its tail, and how many were cut."""
    if len(text) <= chars:
        return text, 0
    # The note's own length depends on the number in it: reckon with the longest it can be.
    room = chars - len(f"\n[... {len(text)} characters cut ...]\n")
    if room <= 0:
        return text[:chars], len(text) - chars
    head = room // 2
    tail = room - head
    cut = len(text) - room
    return f"{text[:head]}\n[... {cut} characters cut ...]\n{text[-tail:]}", cut
