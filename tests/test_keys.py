"""Keys and plain text: pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procpool.keys import Keyboard, sequence
from procpool.plain import plain, without_echo


@pytest.mark.parametrize(
    ("key", "normal", "application"),
    [
        ("a", "a", "a"),
        ("é", "é", "é"),
        ("-", "-", "-"),
        ("C-c", "\x03", "\x03"),
        ("C-C", "\x03", "\x03"),
        ("C-[", "\x1b", "\x1b"),
        ("C-Space", "\0", "\0"),
        ("C-?", "\x7f", "\x7f"),
        ("M-x", "\x1bx", "\x1bx"),
        ("C-M-a", "\x1b\x01", "\x1b\x01"),
        ("S-a", "A", "A"),
        ("Enter", "\r", "\r"),
        ("M-Enter", "\x1b\r", "\x1b\r"),
        ("Tab", "\t", "\t"),
        ("S-Tab", "\x1b[Z", "\x1b[Z"),
        ("BTab", "\x1b[Z", "\x1b[Z"),
        ("Escape", "\x1b", "\x1b"),
        ("BSpace", "\x7f", "\x7f"),
        ("Up", "\x1b[A", "\x1bOA"),
        ("End", "\x1b[F", "\x1bOF"),
        ("C-Up", "\x1b[1;5A", "\x1b[1;5A"),
        ("S-M-Left", "\x1b[1;4D", "\x1b[1;4D"),
        ("Delete", "\x1b[3~", "\x1b[3~"),
        ("C-PageUp", "\x1b[5;5~", "\x1b[5;5~"),
        ("F1", "\x1bOP", "\x1bOP"),
        ("S-F1", "\x1b[1;2P", "\x1b[1;2P"),
        ("F5", "\x1b[15~", "\x1b[15~"),
        ("F12", "\x1b[24~", "\x1b[24~"),
    ],
)
def test_sequences(key, normal, application):
    """Xterm's, in both forms of the cursor keys."""
    assert sequence(key, application=False) == normal
    assert sequence(key, application=True) == application


@pytest.mark.parametrize("key", ["", "Ctrl-c", "up", "C-", "C-é", "C-ß", "C-1", "F13"])
def test_what_is_no_key(key):
    """A clear error that names it."""
    with pytest.raises(ValueError, match="key"):
        sequence(key, application=False)
    with pytest.raises(TypeError, match="keys"):
        sequence(3, application=False)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["\x1b[?1h", "\x1b[?1l", "\x1b[?2004h", "\x1b[?1;2004l", "text", "\x1b[1m", "\x1b"])),
    st.integers(1, 9),
)
def test_p20_modes_do_not_depend_on_chunks(parts, size):
    """However the codes are torn."""
    data = "".join(parts).encode()
    whole, torn = Keyboard(), Keyboard()
    whole.watch(data)
    for at in range(0, len(data), size):
        torn.watch(data[at : at + size])
    assert (whole.application, whole.bracketed) == (torn.application, torn.bracketed)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("as it is\n", "as it is\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        (" 10%\r100%\n", "100%\n"),
        ("long line\rshort\n", "shortline\n"),
        ("long line\r\x1b[Kshort\n", "short\n"),
        ("\x1b[31mred\x1b[0m\n", "red\n"),
        ("abc\b\bX\n", "aXc\n"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP+q436f\x1b\\text", "text"),
        ("\x1b(Btext\x1b=", "text"),
        ("\x1b[5Gx", "    x"),
        ("ab\x1b[2Dc", "cb"),
        ("ab\x1b[Dc", "ac"),
        ("a\x1b[2Cb", "a  b"),
        ("abcd\x1b[3D\x1b[2P", "ad"),
        ("ad\x1b[D\x1b[2@bc", "abcd"),
        ("abc\x1b[2D\x1b[X", "a c"),
        ("abc\x1b[2K", ""),
        ("abc\x1b[1K", "   "),
        ("\x1b[?2004l\r42", "42"),
        ("bell\x07 and nul\0", "bell and nul"),
        ("tab\tstays", "tab\tstays"),
        ("a\x1b[" + "1" * 5000 + "Kb", "ab"),
        ("torn \x1b[3", "torn "),
        ("hello\r\x1b[Jhi", "hi"),
        ("hello\x1b[1G\x1b[0Jhi", "hi"),
        ("日本語 10%\rok", "ok本語 10%"),
        ("日本\b\bx", "日x "),
        ("日本\b\b\bx", " x本"),
        ("e\u0301\rX", "X"),
        ("日e\u0301\b\bx\r", " xe\u0301"),
        ("torn \x1b", "torn "),
    ],
)
def test_plain(text, shown):
    """Codes out, lines as they stood in the end."""
    assert plain(text) == shown


def test_p24_codes_do_not_make_a_line_endless():
    """A few bytes of them ask for a thousand columns each."""
    assert len(plain("a\r" + "\x1b[1000@" * 6000)) == 10_000


@settings(deadline=None)
@given(st.text())
def test_plain_takes_anything(text):
    """No text is an error; as many lines as before, and no escape left; text without codes is as it was."""
    found = plain(text)
    assert found.count("\n") == text.count("\n")
    assert "\x1b" not in found
    assert plain(found) == found


@pytest.mark.parametrize(
    ("text", "sent", "left"),
    [
        ("6 * 7\n42\n", "6 * 7", "42\n"),
        ("42\n", "6 * 7", "42\n"),
        ("aa  bb\nout\n", "aa\tbb", "out\n"),
        ("", "x", ""),
        ("x", "x", "x"),
        ("for i in r:\n...     i\n... \n0\n", "for i in r:\n    i\n", "0\n"),
        ("a\nb\nout\n", "a\nb", "out\n"),
        ("a\nout\n", "a\nb", "out\n"),
    ],
)
def test_echoes(text, sent, left):
    """Left out where they are, line by line."""
    assert without_echo(text, sent) == left
