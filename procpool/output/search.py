"""What `expect` looks for, and where in a stream it has looked. Pure, as the buffers are."""

from __future__ import annotations

import re
from typing import Optional, Union

from procpool.facts import NamedTuple
from procpool.output.buffer import Position
from procpool.snapshot import Part

QUIET_SECS = 0.02  # a match that more output could change stands after this long without any

Pattern = Union[str, re.Pattern[str]]


def compile_patterns(
    pattern: Pattern | list[Pattern] | tuple[Pattern, ...], name: str = "pattern"
) -> list[re.Pattern[str]]:
    """Compile one pattern or several; refuse what could never match within a line. `name` is that of the argument."""
    several = pattern if isinstance(pattern, (list, tuple)) else [pattern]
    if not several:
        raise ValueError(f"{name} must not be an empty list")
    compiled = []
    for item in several:
        if isinstance(item, re.Pattern) and isinstance(item.pattern, str):
            found = item
        elif isinstance(item, str):
            try:
                found = re.compile(item)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"{name} is not a regular expression: {item!r:.200}: {error}") from None
        else:
            raise TypeError(f"{name} must be a str, a compiled str pattern or a list of them, not {item!r}")
        if _holds_newline(found):
            raise ValueError(
                f"{name} can never match: {found.pattern!r} holds a newline, and the search goes line by line"
            )
        compiled.append(found)
    return compiled


def _holds_newline(pattern: re.Pattern[str]) -> bool:
    """Say whether a pattern asks for a newline outside of a character class (`[^\\n]` is fine)."""
    inside = False
    first = 0  # of a class: there `]` stands for itself
    tokens = re.findall(r"\\.|\[\^|.", pattern.pattern, re.DOTALL)
    for at, token in enumerate(tokens):
        if inside:
            inside = token != "]" or at == first
        elif token.startswith("["):
            inside, first = True, at + 1
        elif token in ("\\n", "\\\n") or (token == "\n" and not pattern.flags & re.VERBOSE):
            return True
    return False


class Hit(NamedTuple):
    """A pattern's match in a line."""

    order: float  # of the line; infinite for the unfinished one
    pattern: int  # its index
    match: re.Match[str]
    line: int
    unfinished: bool

    @property
    def grows(self) -> bool:
        """Whether the match touches the end of an unfinished line, and so may change."""
        return self.unfinished and self.match.end() == len(self.match.string)


class Search:
    """A search through one stream, resumed as output comes: every finished line is looked at once."""

    __slots__ = ("patterns", "position")

    def __init__(self, patterns: list[re.Pattern[str]], position: Position) -> None:
        self.patterns = patterns
        self.position = position  # everything before it has been looked at, or belongs to an earlier match

    def look(self, part: Part, first: int) -> Optional[Hit]:
        """Look at a part that begins with line number `first`; return the earliest match.

        The search moves on to the unfinished line; with a match it stays, so that it can be looked at again.
        """
        line, chars = self.position
        if line < first:
            line, chars = first, 0
        lines = part.lines()
        hit = self._earliest(lines, line, chars, part)
        if hit is not None:
            return hit
        after = line + len(lines)
        if lines:
            chars = 0
        self.position = Position(after, chars)
        unfinished = part.text[part.tail :].removesuffix("\r")
        if unfinished:
            found = self._match(unfinished, chars)
            if found is not None:
                return Hit(float("inf"), *found, after, True)
        return None

    def _earliest(self, lines: list[str], line: int, chars: int, part: Part) -> Optional[Hit]:
        if not lines:
            return None
        number = 0
        found = self._match(lines[0], chars)
        if found is None:
            rest = lines[1:]
            hits = []
            for index, pattern in enumerate(self.patterns):
                for at, match in enumerate(map(pattern.search, rest)):
                    if match is not None:
                        hits.append((at, match.start(), index, match))
                        del rest[at + 1 :]  # a later line cannot win any more
                        break
            if not hits:
                return None
            at, _, index, match = min(hits, key=lambda hit: hit[:3])
            number, found = at + 1, (index, match)
        return Hit(_order(part, number), *found, line + number, False)

    def _match(self, text: str, chars: int) -> Optional[tuple[int, re.Match[str]]]:
        """Return the earliest match in one line; at the same place the pattern named first wins."""
        best = None
        for index, pattern in enumerate(self.patterns):
            match = pattern.search(text, chars)
            if match is not None and (best is None or match.start() < best[1].start()):
                best = index, match
        return best


def _order(part: Part, number: int) -> int:
    """Return when, among the chunks of both streams, a line of a part was read."""
    for count, order, _ in part.runs:
        if number < count:
            return order
        number -= count
    raise IndexError(number)
