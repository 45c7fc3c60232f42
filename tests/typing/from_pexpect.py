"""What was `pexpect.spawn`."""

from __future__ import annotations

import sys
from typing import Union

import procpool


def login(host: str, password: str) -> Union[str, None]:
    """Return the prompt, or None."""
    with procpool.spawn("my-client", [host], merge_stderr=True) as client:
        try:
            match = client.expect(["[Pp]assword:", r"\$ $"], timeout=20)
            if match.index == 0:
                client.send_line(password)
                match = client.expect(r"\$ $")
            before: str = match.before
            return before + (match[0] or "")
        except procpool.EndOfOutputError as error:
            print(error.returncode, error.output.text)
        except procpool.TimeoutExpired as error:
            print(error.timeout)
        client.stream(sys.stderr)
    return None
