"""The house: imports point down, the public names are these, the tests use what they have."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import procpool

PACKAGE = Path(procpool.__file__).parent
TESTS = Path(__file__).parent

# The architecture, from the ground up. Rooms on one floor do not know each other.
FLOORS = [
    {"errors", "facts", "guard", "keys", "plain"},
    {"snapshot"},
    {"duty"},
    {"lifetime", "output", "system", "housekeeper"},
    {"stdin"},
    {"child"},
    {"pool", "turn", "screen"},
    {"waiting"},
    {"process"},
    {"orphans", "ready"},
    {"manager"},
    {"__init__"},
    {"adapters"},
    {"__main__"},
]


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(tree: ast.AST, skip_typing: bool = True):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and skip_typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from inside if node.module == "procpool" else [node.module]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from imports(node, skip_typing)


def test_imports_point_down():
    """No room imports one above it, or another on its own floor."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imports(ast.parse(path.read_text())):
            if module.split(".")[0] != "procpool":
                continue
            there = room(module)
            if there not in floor:  # a name of the package itself, such as procpool.spawn
                there = "__init__"
            if there != here:
                assert floor[there] < floor[here], f"{path.name} imports {module}"


def test_every_module_stands_on_a_floor():
    """A new room is drawn into the plan above."""
    names = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__pycache__", "py.typed"} == set().union(*FLOORS)


def test_exports():
    """`__all__` is sorted, complete, and what users may rely on."""
    assert procpool.__all__ == sorted(procpool.__all__, key=lambda name: (name.islower(), name))
    for name in procpool.__all__:
        thing = getattr(procpool, name)
        assert thing.__doc__, name
        assert thing.__module__.startswith("procpool"), name


def test_import_is_lazy():
    """They cost more than all the rest, and an import does not need them."""
    heavy = ["psutil", "concurrent.futures", "logging", "dataclasses", "inspect", "pathlib", "socket", "json"]
    heavy += ["asyncio", "ctypes"]
    script = f"import sys, procpool; print([name for name in {heavy!r} if name in sys.modules])"
    # Without `site`, which imports what it likes; so the package has to be found for it.
    script = f"import sys; sys.path[:0] = {[str(PACKAGE.parent)]!r}; {script}"
    done = subprocess.run([sys.executable, "-S", "-E", "-c", script], capture_output=True, text=True, timeout=15)
    assert done.stdout == "[]\n", done.stderr


def test_every_step_of_the_child_program_is_used():
    """What no test plays any more is taken out."""
    import child

    text = "".join(path.read_text() for path in TESTS.rglob("*.py") if path.name != "child.py")
    unused = [step for step in child.STEPS if not re.search(rf"[\"']{step}[:\"']", text)]
    assert unused == []


def test_every_promise_is_named_once_by_a_test():
    """`test_pNN_` says which promise it shows; the ones that are still to come are listed here."""
    text = "".join(path.read_text() for path in TESTS.rglob("*.py"))
    shown = {int(number) for number in re.findall(r"_p(\d\d)(?=_)", text)}
    to_come = {29}
    assert shown | to_come == set(range(1, 45)), sorted(set(range(1, 45)) - shown - to_come)
    assert not shown & to_come, sorted(shown & to_come)


def test_what_is_said_of_tests_is_said_of_tests_that_there_are():
    """No reason stays behind when its test goes."""
    from conftest import OF_PIPES

    text = "".join(path.read_text() for path in TESTS.rglob("*.py"))
    assert [name for name in OF_PIPES if f"def {name}(" not in text] == []
