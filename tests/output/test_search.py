"""The search: line by line, the earliest match wins, and chunks do not matter."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procpool.output.buffer import Decoding, LineBuffer, Position
from procpool.output.search import Search, compile_patterns

UTF8 = Decoding()
text = st.text(st.sampled_from("ab1\n "), max_size=40)
patterns = st.lists(
    st.sampled_from(["a", "b+", r"\d", "ab", "^a", "b$", "a.b", "[^a]b", "", " +$"]), min_size=1, max_size=3
)


def look(search, buffer):
    span = buffer.since(search.position)
    return search.look(span.part("stdout", UTF8), span.first)


def find_all(pattern, chunks, ended=True):
    """Search as expect does, chunk after chunk; return (line, pattern, begin) of each hit in a finished line."""
    buffer = LineBuffer()
    compiled = compile_patterns(pattern)
    found = []
    search = Search(compiled, Position())
    for chunk in [*chunks, None]:
        if chunk is not None:
            buffer.append(chunk.encode())
        elif ended:
            buffer.close()
        while True:
            hit = look(search, buffer)
            if hit is None or hit.unfinished:
                break
            found.append((hit.line, hit.pattern, hit.match.start(), hit.match[0]))
            end = max(hit.match.end(), 1 if hit.match.end() == hit.match.start() else 0)
            # An empty match would be found for ever: go on with the next line.
            position = Position(hit.line + 1) if not hit.match[0] else Position(hit.line, end)
            search = Search(compiled, position)
    return found


@settings(max_examples=300, deadline=None)
@given(text, st.lists(st.integers(1, 9), min_size=1), patterns)
def test_p20_matches_in_lines_do_not_depend_on_the_chunks(whole, sizes, wanted):
    """The same hits, whether the text comes at once or in pieces."""
    chunks = []
    rest = whole
    while rest:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(rest[:size])
        rest = rest[size:]
    assert find_all(wanted, chunks) == find_all(wanted, [whole] if whole else [])


def test_the_earliest_line_wins_then_the_earliest_place_then_the_first_pattern():
    """As a person would look."""
    assert find_all(["c", "b"], ["a b\nc\n"])[0][:2] == (0, 1)
    assert find_all(["b", "a"], ["a b\n"])[0][:2] == (0, 1)
    assert find_all(["a", "a b"], ["a b\n"])[0][:2] == (0, 0)


def test_a_match_never_crosses_lines_and_ends_before_a_return():
    """`.*` stops at the end of a line, `$` stands before `\\r\\n`."""
    assert find_all("a.*", ["xab\r\ncd\n"])[0] == (0, 0, 1, "ab")
    assert find_all(r"b$", ["ab\r\n"])[0][3] == "b"
    assert find_all(r"a\s+b", ["a\nb\n"]) == []


def test_an_unfinished_line_is_searched_and_its_hit_may_grow():
    """The caller is told that the match touches the end."""
    buffer = LineBuffer()
    buffer.append(b"port 80")
    search = Search(compile_patterns(r"port (\d+)"), Position())
    hit = look(search, buffer)
    assert hit.unfinished
    assert hit.grows
    assert hit.match[1] == "80"
    buffer.append(b"00 ")
    hit = look(search, buffer)
    assert hit.unfinished
    assert not hit.grows
    assert hit.match[1] == "8000"
    buffer.append(b"\n")
    assert not look(search, buffer).unfinished


def test_a_search_goes_on_within_the_line():
    """What was matched before is behind it; `^` still means the begin of the line."""
    buffer = LineBuffer()
    buffer.append(b"aa\n")
    assert look(Search(compile_patterns("a"), Position(0, 1)), buffer).match.start() == 1
    assert look(Search(compile_patterns("^a"), Position(0, 1)), buffer) is None


def test_lines_that_left_are_passed_over():
    """A search that begins before the oldest line kept begins there."""
    buffer = LineBuffer(max_lines=2)
    buffer.append(b"a\nb\nc\n")
    hit = look(Search(compile_patterns("."), Position()), buffer)
    assert (hit.line, hit.match[0]) == (1, "b")


@pytest.mark.parametrize(
    "pattern",
    [
        "a\nb",
        r"a\nb",
        "\n",
        r"(\n)",
        r"[a]\n",
        r"[^]a]\n",
        r"[]\n]\n",
        r"[.[]\n",
        r"[^]]\n",
        re.compile("a\nb"),
        ["ok", "a\n"],
    ],
)
def test_a_pattern_with_a_newline_is_refused(pattern):
    """It could never match, and would only time out."""
    with pytest.raises(ValueError, match="line by line"):
        compile_patterns(pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"[^\n]*", "[^\n]", r"a\\n", r"\[\^", re.compile("a  # b\n c", re.VERBOSE), r"[]\n]x", "", ["a", "b"], ("a",)],
)
def test_a_pattern_without_one_is_taken(pattern):
    """A newline in a character class does no harm."""
    assert compile_patterns(pattern)


@pytest.mark.parametrize("pattern", [None, 1, b"a", re.compile(b"a"), [b"a"], {"a"}])
def test_a_pattern_is_a_str(pattern):
    """Output is text."""
    with pytest.raises(TypeError, match="pattern must be"):
        compile_patterns(pattern)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [("(", "not a regular expression"), ([], "empty list"), ("a{" + "9" * 30 + "}", "not a regular expression")],
)
def test_a_pattern_that_cannot_be_compiled_is_refused(pattern, what):
    """A plain ValueError names it."""
    with pytest.raises(ValueError, match=what):
        compile_patterns(pattern)
