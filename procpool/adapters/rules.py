"""Rules for what a model may start: a clean environment, and a list of commands.

None of it contains a program once it runs. What these rules can and cannot stop stands in
`docs/how-to/rules-for-agents.md`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Optional

# What a program needs to find its way; no name that services keep their keys under.
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "VIRTUAL_ENV")
KEPT_PREFIXES = ("LC_",)
# What keeps programs from asking, paging, colouring and holding their output back.
FOR_AGENTS = {
    "NO_COLOR": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "DEBIAN_FRONTEND": "noninteractive",
    "PYTHONUNBUFFERED": "1",
}

SHELLS = frozenset({
    "ash", "bash", "csh", "dash", "elvish", "fish", "ion", "ksh", "lksh", "mksh", "nu", "oksh", "osh", "rbash", "rc",
    "sh", "tcsh", "xonsh", "yash", "zsh",
})  # fmt: skip
# One file that is many programs: which one depends on the name that it is called by, or on its first argument.
MULTI_CALL = frozenset(["busybox", "toybox", "coreutils", "uutils", "sbase-box", "ubase-box", "crunchgen", "box"])
# What runs others that it is given in ways that cannot be seen through from outside.
OPAQUE = frozenset({
    "at", "batch", "bwrap", "chroot", "doas", "entr", "fakeroot", "firejail", "flatpak", "ld.so", "ltrace", "nsenter",
    "parallel", "perf", "pkexec", "proot", "pwsh", "rlwrap", "runuser", "screen", "script", "setarch", "setpriv", "ssh",
    "strace", "su", "sudo", "systemd-run", "tmux", "unbuffer", "unshare", "valgrind", "watch", "xargs", "xvfb-run",
})  # fmt: skip
FIND_ACTIONS = frozenset({"-exec", "-execdir", "-ok", "-okdir"})
GIT_OPTIONS = ("-c", "--config-env", "--exec-path")
# What makes a loader or an interpreter run code that is not on the command line. The owner's own values may stay.
LOADER_VARIABLES = re.compile(
    r"PATH|LD_.*|DYLD_.*|GCONV_PATH|LOCPATH|IFS|ENV|BASH_ENV|BASH_FUNC_.*|SHELLOPTS|BASHOPTS|PS4|PROMPT_COMMAND|ZDOTDIR"
    r"|PYTHON(STARTUP|PATH|HOME|INSPECT|BREAKPOINT|USERBASE|PLATLIBDIR|EXECUTABLE|WARNINGS|CASEOK)"
    r"|PERL5?(LIB|OPT|DB)|PERLLIB|RUBY(OPT|LIB)|GEM_(HOME|PATH)|BUNDLE_.*|NODE_(OPTIONS|PATH)|npm_config_.*|NPM_CONFIG_.*"
    r"|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH|LUA_(INIT|PATH|CPATH).*|PHP_INI_SCAN_DIR|PHPRC"
    r"|GIT_.*|SSH_ASKPASS|VISUAL|EDITOR|PAGER|MANPAGER|LESSOPEN|LESSCLOSE|MAKEFLAGS|GNUMAKEFLAGS|MAKEFILES|TCLLIBPATH",
)


def clean_env(
    keep: Iterable[str] = (), extra: Optional[Mapping[str, str]] = None, *, base: Optional[Mapping[str, str]] = None
) -> dict[str, str]:
    """Return an environment for what a model starts: of ours only what is known to be harmless.

    API keys, tokens and all else that is not listed stays out. Variables that agents want are added: no colours, no
    pager, no questions of git, no held-back output of Python.

    - `keep`: more names to keep; `extra`: what is set besides, over everything else
    - `base`: what to start from (default: `os.environ`)

    >>> from procpool.adapters.rules import clean_env
    >>> clean_env(base={"PATH": "/bin", "OPENAI_API_KEY": "secret"}, extra={"PAGER": "less"})["PAGER"]
    'less'
    """
    if isinstance(keep, str):
        raise TypeError("keep must be a list of names, not a single str")
    names = {*KEPT, *keep}
    found = os.environ if base is None else base
    kept = {name: value for name, value in found.items() if name in names or name.startswith(KEPT_PREFIXES)}
    return {**kept, **FOR_AGENTS, **({} if extra is None else extra)}


def within(path: str, root: str) -> bool:
    """Say whether a real path lies in another one."""
    return os.path.commonpath([path, root]) == root


class _Wrapper(NamedTuple):
    """A program that runs the rest of its command line: its options without a value, those with one, and the words
    that come before the command.
    """

    flags: frozenset[str]
    valued: frozenset[str]
    words: int = 0


WRAPPERS = {
    "env": _Wrapper(frozenset(), frozenset()),
    "nice": _Wrapper(frozenset(), frozenset({"-n", "--adjustment"})),
    "ionice": _Wrapper(frozenset({"-t", "--ignore"}), frozenset({"-c", "--class", "-n", "--classdata"})),
    "nohup": _Wrapper(frozenset(), frozenset()),
    "setsid": _Wrapper(frozenset({"-c", "--ctty", "-f", "--fork", "-w", "--wait"}), frozenset()),
    "stdbuf": _Wrapper(frozenset(), frozenset({"-i", "--input", "-o", "--output", "-e", "--error"})),
    "timeout": _Wrapper(
        frozenset({"--preserve-status", "--foreground", "-v", "--verbose"}),
        frozenset({"-k", "--kill-after", "-s", "--signal"}),
        words=1,
    ),
}


class AllowCommands:
    """An `authorize` hook that lets only certain programs be started.

    A name is looked up once, in the PATH of now; a command may then be started if the file that it resolves to is
    that one. So a program of the same name in another folder is refused, and a link to an allowed one is not. It looks
    at the argv, never at shell text:

    - a shell may be listed, but is never started with `-c`
    - a multi-call binary (busybox) is refused unless it is listed by its own name, which allows all of its applets
    - of wrappers, `env`, `nice`, `ionice`, `nohup`, `setsid`, `stdbuf` and `timeout` are looked through, if all of
      their options are known; others (`xargs`, `sudo`, `ssh`...) cannot be listed, and neither can `find -exec` run
    - variables that make a loader or an interpreter run other code must have the owner's own values

    It stops mistakes, not an adversary: an interpreter that is allowed is a shell, and so is all that reads commands
    from files that the model can write (`npm run`, `make`, git hooks). Raises TypeError or ValueError for a list that
    cannot be checked.

    >>> from procpool import NotAuthorizedError, ProcessManager
    >>> from procpool.adapters.rules import AllowCommands
    >>> with ProcessManager(authorize=AllowCommands("echo")) as manager:
    ...     echo = manager.start("a", "echo", ["hello"])
    ...     try:
    ...         manager.start("a", "sh", ["-c", "echo hello"])
    ...     except NotAuthorizedError as error:
    ...         print(error.sentence)
    Agent 'a' may not run 'sh'
    """

    def __init__(self, *commands: str) -> None:
        self._path = os.environ.get("PATH", os.defpath)
        self._files: dict[str, str] = {}
        for command in commands:
            if not isinstance(command, str):
                raise TypeError(f"a command must be a str, not {type(command).__name__}")
            if os.path.basename(command) in OPAQUE:
                raise ValueError(f"{command!r} runs other commands, which cannot be checked")
            found = _resolve(command, self._path, None)
            if found is None:
                raise ValueError(f"there is no command {command!r} here")
            if os.path.basename(found) in MULTI_CALL and os.path.basename(found) != os.path.basename(command):
                raise ValueError(
                    f"{command!r} is {os.path.basename(found)}, which is many programs: list that, to allow all of them"
                )
            self._files[found] = command

    def __call__(self, agent_id: str, argv: tuple[str, ...], cwd: Optional[str], env: Mapping[str, str]) -> bool:
        """Say whether an argv may be started; see `refusal`."""
        return self.refusal(argv, cwd, env) is None

    def refusal(self, argv: tuple[str, ...], cwd: Optional[str], env: Mapping[str, str]) -> Optional[str]:
        """Say why an argv may not be started; None if it may."""
        for name, value in env.items():
            if LOADER_VARIABLES.fullmatch(name) and value not in (os.environ.get(name), FOR_AGENTS.get(name)):
                return f"{name} can make a program run other code"
        path = env.get("PATH", os.defpath)
        words = list(argv)
        while words:
            found = _resolve(words[0], path, cwd)
            if any(place.startswith(("/proc/", "/dev/")) for place in (found or "", _place(words[0], cwd))):
                return f"{words[0]!r} may be another file when it is run"
            if found is None:
                return None  # it cannot be started; the start says so
            if found in self._files:
                return _refused_arguments(words, found)
            wrapper = WRAPPERS.get(os.path.basename(found))
            if wrapper is None or found != _resolve(os.path.basename(found), self._path, None):
                return f"{words[0]!r} is not allowed"
            rest = _unwrapped(words, wrapper)
            if rest is None:
                return f"{words[0]!r} has options that cannot be seen through"
            words = rest
        return "a wrapper without a command"


def _place(command: str, cwd: Optional[str]) -> str:
    """Return the path that a command names; its links are not followed. Empty for a name that is looked up."""
    if os.sep not in command:
        return ""
    return os.sep + os.path.normpath(os.path.join(cwd or os.getcwd(), command)).lstrip(os.sep)


def _resolve(command: str, path: str, cwd: Optional[str]) -> Optional[str]:
    """Return the real path of what would be run."""
    if os.sep in command:
        found = os.path.join(cwd or os.getcwd(), command)
        return os.path.realpath(found) if os.access(found, os.X_OK) and os.path.isfile(found) else None
    # Popen looks in relative folders of PATH from the new directory.
    folders = [os.path.join(cwd or os.getcwd(), folder) for folder in path.split(os.pathsep)]
    found_by_name = shutil.which(command, path=os.pathsep.join(folders))
    return None if found_by_name is None else os.path.realpath(found_by_name)


def _refused_arguments(words: list[str], found: str) -> Optional[str]:
    """Say what is wrong with the arguments of a program that is allowed."""
    names = {os.path.basename(words[0]), os.path.basename(found)}
    stems = {re.sub(r"[-.\d]+$", "", name) for name in names} | names
    if stems & SHELLS and any(_is_shell_command(word) for word in words[1:]):
        return "a shell is not started with -c"
    if "find" in names and FIND_ACTIONS.intersection(words):
        return "find may not run commands"
    if "git" in names and any(
        word == option or word.startswith(f"{option}=") for word in words for option in GIT_OPTIONS
    ):
        return "git -c can make it run any command"
    return None


def _is_shell_command(word: str) -> bool:
    """Say whether a shell takes a word for -c: alone, among other letters, or written out."""
    if word.startswith("--"):
        return word.lower().startswith(("--c", "--init-c"))
    return word[:1] in ("-", "+") and "c" in word


def _unwrapped(words: list[str], wrapper: _Wrapper) -> Optional[list[str]]:
    """Return the command that a wrapper runs; None if one of its options is not known."""
    at = 1
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        at += 1
        if word == "--":
            break
        name, equals, _ = word.partition("=")
        if word in wrapper.flags:
            continue
        if word in wrapper.valued:
            at += 1
        elif not (equals and name.startswith("--") and name in wrapper.valued) and not (
            not word.startswith("--") and word[:2] in wrapper.valued
        ):
            return None
    if words[0].rpartition(os.sep)[2] == "env":
        while at < len(words) and "=" in words[at]:
            name, _, value = words[at].partition("=")
            if LOADER_VARIABLES.fullmatch(name) and value != os.environ.get(name):
                return None
            at += 1
    return words[at + wrapper.words :]
