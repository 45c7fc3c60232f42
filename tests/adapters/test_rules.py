"""Rules: each attempt to get around them is refused, or is told of in the docs as what no list can stop."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

import procpool
from procpool.adapters.rules import FOR_AGENTS, AllowCommands, clean_env

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "rules-for-agents.md"


def script(path, text="#!/bin/sh\nexit 0\n"):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder on PATH with programs of ours: `tool` and `other`, and busybox with an applet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("tool", "other", "busybox", "find", "git"):
        script(folder / name)
    (folder / "ls-of-busybox").symlink_to(folder / "busybox")
    (folder / "alias").symlink_to(folder / "tool")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def refusal(rules, *argv, cwd=None, **env):
    return rules.refusal(argv, cwd, {**os.environ, **env})


def test_what_is_listed_may_be_started(place, tmp_path):
    """By its name, by its path, by a link, and through wrappers whose options are known."""
    rules = AllowCommands("tool", "sh", "git")
    for argv in (
        ["tool"],
        ["tool", "-c", "whatever; it | likes"],
        [str(place / "tool")],
        ["alias"],
        ["nice", "tool"],
        ["nice", "-n", "5", "nohup", "tool", "-x"],
        ["nice", "--adjustment=5", "tool"],
        ["timeout", "-k", "3", "10", "tool"],
        ["timeout", "--", "10", "tool"],
        ["stdbuf", "-oL", "tool"],
        ["setsid", "-w", "tool"],
        ["env", "NAME=value", "tool"],
        ["env", "--", "tool"],
        ["sh", "script.sh"],
        ["sh", "-ex", "script.sh", "-c", "prod"],
        ["sh", "-o", "errexit", "./configure", "--cache-file=x"],
        ["nice", "-10", "tool"],
        ["setsid", "-fw", "tool"],
        ["env", "-u", "NAME", "PAGER=cat", "tool"],
        ["git", "switch", "-c", "x"],
        ["git", "-C", "/", "commit", "-c", "HEAD"],
    ):
        assert refusal(rules, *argv) is None, argv
    assert refusal(rules, "./tool", cwd=str(place)) is None
    assert refusal(rules, "tool", PYTHONUNBUFFERED="1", PAGER="cat") is None
    assert refusal(rules, "no-such-command") is None  # the start says that there is none


ESCAPES = {
    "another command": ["other"],
    "its path": ["{place}/other"],
    "a path through dots": ["{place}/../bin/other"],
    "a name with a slash before it": ["//bin/cat"],
    "a shell": ["bash"],
    "a shell's -c": ["sh", "-c", "other"],
    "a shell's -c among letters": ["sh", "-xc", "other"],
    "a shell's -c behind others": ["sh", "-e", "-u", "-c", "other"],
    "a shell's +c": ["sh", "+xc", "other"],
    "a shell's --command": ["sh", "--command", "other"],
    "a shell by a link": ["{tmp}/innocent", "-c", "other"],
    "a shell behind a wrapper": ["nice", "sh", "-c", "other"],
    "a shell behind two wrappers": ["nohup", "timeout", "5", "sh", "-c", "other"],
    "a command behind a wrapper": ["nice", "other"],
    "env -S": ["env", "-S", "other x"],
    "env -S, joined": ["env", "-Sother x"],
    "env --split-string": ["env", "--split-string=other x"],
    "env -C": ["env", "-C", "/", "./other"],
    "env -i": ["env", "-i", "tool"],
    "env PATH": ["env", "PATH={tmp}", "tool"],
    "env LD_PRELOAD": ["env", "LD_PRELOAD={tmp}/x.so", "tool"],
    "env, again": ["env", "A=b", "env", "LD_PRELOAD=x", "tool"],
    "a wrapper's unknown option": ["timeout", "--unknown", "5", "tool"],
    "a wrapper of the same name elsewhere": ["{tmp}/nice", "tool"],
    "a wrapper without a command": ["nice"],
    "xargs": ["xargs", "tool"],
    "find -exec": ["find", ".", "-exec", "other", ";"],
    "find -execdir": ["find", ".", "-execdir", "other", ";"],
    "find -ok": ["find", ".", "-ok", "other", ";"],
    "git -c": ["git", "-c", "core.pager=other", "log"],
    "git --config-env": ["git", "--config-env=core.pager=X", "log"],
    "git --exec-path": ["git", "--exec-path={tmp}", "log"],
    "git -c, behind -C": ["git", "-C", "/", "-c", "alias.x=!other", "x"],
    "an applet of busybox": ["ls-of-busybox"],
    "busybox itself": ["busybox", "sh"],
    "/proc/self/exe": ["/proc/self/exe", "-c", "1"],
    "/proc/self/exe, with two slashes": ["//proc/self/exe", "-c", "1"],
    "/proc/self/root": ["/proc/self/root/bin/sh"],
    "/dev/fd": ["/dev/fd/3"],
    "the loader": ["{loader}", "{place}/other"],
    "sudo": ["sudo", "tool"],
    "a shell's startup file": ["sh", "--rcfile", "x"],
    "a link to env": ["{tmp}/myenv", "A=b", "other"],
    "env -u PATH": ["env", "-u", "PATH", "tool"],
    "a wrapper and what is not there": ["nice", "no-such-command"],
    "through a link to /proc": ["{tmp}/proc-link/self/cwd/tool"],
    "through a link into /proc": ["{tmp}/cwd-link/tool"],
    "git, with an attached -c": ["git", "-ccore.pager=other", "log"],
    "git clone -c": ["git", "clone", "-ccore.hooksPath=x", "y"],
}
VARIABLES = {
    "LD_PRELOAD": "x.so", "LD_LIBRARY_PATH": "/tmp", "LD_AUDIT": "x.so", "PATH": "/tmp", "PYTHONSTARTUP": "x.py",
    "PYTHONPATH": "/tmp/of-the-model", "BASH_ENV": "x", "ENV": "x", "NODE_OPTIONS": "--require x", "PERL5OPT": "-Mx", "RUBYOPT": "-rx",
    "GIT_SSH_COMMAND": "x", "GIT_CONFIG_COUNT": "1", "PAGER": "x", "EDITOR": "x", "JAVA_TOOL_OPTIONS": "-javaagent:x",
    "BASH_FUNC_tool%%": "() { other; }", "npm_config_script_shell": "x", "MAKEFLAGS": "--eval=x", "GCONV_PATH": "/tmp",
}  # fmt: skip


@pytest.mark.parametrize("attempt", ESCAPES)
def test_an_escape_is_refused(place, tmp_path, attempt):
    """By the words of the command line."""
    rules = AllowCommands("tool", "sh", "find", "git")
    (tmp_path / "innocent").symlink_to("/bin/sh")
    (tmp_path / "myenv").symlink_to(shutil.which("env"))
    (tmp_path / "proc-link").symlink_to("/proc")
    (tmp_path / "cwd-link").symlink_to("/proc/self/cwd")
    script(tmp_path / "nice")
    loader = next(iter(Path("/").glob("lib*/ld-linux*")), "/bin/other")
    argv = [word.format(place=place, tmp=tmp_path, loader=loader) for word in ESCAPES[attempt]]
    if "/" not in argv[0] and shutil.which(argv[0]) is None:
        script(place / argv[0])
    assert refusal(rules, *argv), argv


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_loads_code_is_refused(place, name):
    """Where it has not the owner's own value."""
    rules = AllowCommands("tool")
    assert name in refusal(rules, "tool", **{name: VARIABLES[name]})
    assert refusal(rules, "tool") is None


def test_a_wrapper_that_is_listed_is_looked_through(place):
    """It is not that program that is run in the end."""
    rules = AllowCommands("timeout", "env", "tool")
    assert refusal(rules, "timeout", "5", "other")
    assert refusal(rules, "env", "other")
    assert refusal(rules, "timeout", "5", "tool") is None
    assert refusal(rules, "env") is None


@pytest.mark.parametrize("shell", ["bash-static", "ksh93", "zsh-5.9", "fish", "nu"])
def test_shells_of_any_name_are_known(place, shell):
    """With a version, or a kind, in it."""
    script(place / shell)
    rules = AllowCommands(shell)
    for option in ("-c", "-C", "--command=x", "-ec"):
        assert refusal(rules, shell, option, "other"), option
    assert refusal(rules, shell, "script") is None


def test_the_values_that_may_stay_can_be_given(place):
    """For a host that gives its processes an environment of its own."""
    env = {"PATH": str(place)}
    assert AllowCommands("tool").refusal(("tool",), None, env)
    assert AllowCommands("tool", trusted=env).refusal(("tool",), None, env) is None


def test_a_relative_path_is_of_the_new_folder(place, tmp_path):
    """Not of ours; and a link in it is seen through."""
    rules = AllowCommands("tool")
    (tmp_path / "there").symlink_to(place)
    script(tmp_path / "tool")
    assert refusal(rules, "./tool", cwd=str(tmp_path))
    assert refusal(rules, "there/tool", cwd=str(tmp_path)) is None
    assert refusal(rules, "there/other", cwd=str(tmp_path))


def test_a_file_that_was_swapped_before_the_check_is_seen(place):
    """By a link to something else; after the check it is not: see the docs."""
    rules = AllowCommands("tool")
    (place / "tool").unlink()
    (place / "tool").symlink_to(place / "other")
    assert refusal(rules, "tool")
    assert "after the check" in PAGE.read_text()


def test_busybox_is_listed_by_its_own_name(place):
    """Which allows all of its applets; none can be listed alone."""
    with pytest.raises(ValueError, match="many programs"):
        AllowCommands("ls-of-busybox")
    rules = AllowCommands("busybox")
    assert refusal(rules, "busybox", "sh") is None
    assert refusal(rules, "ls-of-busybox") is None


def test_a_list_that_cannot_be_checked_is_refused(place):
    """When it is made."""
    for command, error in (
        ("xargs", "runs other commands"),
        ("nohup-like-flock", "there is no command"),
        ("no-such-one", "there is no command"),
    ):
        with pytest.raises(ValueError, match=error):
            AllowCommands(command)
    with pytest.raises(TypeError):
        AllowCommands(["tool"])


def test_the_rules_hold_in_a_manager(place):
    """As its authorize hook: the error says who, and nothing is started."""
    with procpool.ProcessManager(guardian=False, authorize=AllowCommands("tool")) as manager:
        assert manager.spawn("a", "tool").wait(10) == 0
        with pytest.raises(procpool.NotAuthorizedError) as caught:
            manager.start("a", "sh", ["-c", "true"])
        assert caught.value.command == "sh"
        assert caught.value.detail == "'sh' is not allowed"
        assert manager.count() == 1


def test_a_clean_environment():
    """Our names, what is asked for, what agents want; no key."""
    base = {"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "x", "GITHUB_TOKEN": "x", "MINE": "y"}
    assert clean_env(base=base) == {"PATH": "/bin", "LC_ALL": "C", **FOR_AGENTS}
    found = clean_env(["MINE"], {"NO_COLOR": ""}, base=base)
    assert (found["MINE"], found["NO_COLOR"]) == ("y", "")
    with pytest.raises(TypeError, match="keep"):
        clean_env("MINE")


NOT_STOPPABLE = [
    "an interpreter",
    "rg --pre",
    "git grep -O",
    "npm run",
    "make",
    "git hooks",
    "after the check",
    "stdin",
    "its own files",
]


@pytest.mark.parametrize("words", NOT_STOPPABLE)
def test_what_no_list_can_stop_stands_in_the_docs(words):
    """So that nobody takes these rules for more than they are."""
    assert words in PAGE.read_text()


def test_an_allowed_interpreter_is_a_shell():
    """As the docs say: this is what the rules do not stop."""
    code = "import subprocess; subprocess.run(['sh', '-c', 'echo escaped'])"
    with procpool.ProcessManager(guardian=False, authorize=AllowCommands(sys.executable)) as manager:
        process = manager.spawn("a", sys.executable, ["-S", "-E", "-c", code])
        assert process.expect("escaped", 10)
