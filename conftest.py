"""The code blocks of README and docs, and the examples of all docstrings, are tests."""

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser

import procpool


def close_default_manager(_: dict) -> None:
    """`procpool.spawn` leaves its manager to the end of the interpreter; a page should not."""
    if procpool._manager is not None:
        procpool._manager.close()


pages = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"], teardown=close_default_manager)
docstrings = Sybil(
    parsers=[DocTestParser()], patterns=["procpool/*.py", "procpool/**/*.py"], teardown=close_default_manager
)

pytest_collect_file = (pages + docstrings).pytest()
