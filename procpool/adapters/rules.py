"""Rules for what a model may start: a clean environment, and a list of commands.

None of it contains a program once it runs. What these rules can and cannot stop stands in
`docs/how-to/rules-for-agents.md`.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import Optional

from procpool.errors import NotAuthorizedError
from procpool.facts import NamedTuple

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

SHELLS = frozenset({"ash", "bash", "dash", "ksh", "lksh", "mksh", "oksh", "osh", "rbash", "sh", "yash", "zsh"})
OTHER_SHELLS = frozenset({"csh", "elvish", "fish", "ion", "nu", "rc", "tcsh", "xonsh"})
# The options that a shell may have before its script: no -c, no file that it reads at its start.
SHELL_OPTIONS = re.compile(r"[-+][abefhiklmnpstuvxBEHPT]+|--login|--norc|--noprofile|--posix|--")
# One file that is many programs: which one depends on the name that it is called by, or on its first argument.
MULTI_CALL = frozenset({
    "asdf", "box", "busybox", "coreutils", "crunchgen", "mise", "rustup", "sbase-box", "snap", "toybox", "ubase-box",
    "uutils", "volta-shim",
})  # fmt: skip
# What runs others that it is given in ways that are not seen through.
OPAQUE = frozenset({
    "aa-exec", "at", "batch", "bwrap", "capsh", "choom", "chpst", "chroot", "chrt", "daemonize", "dbus-launch",
    "dbus-run-session", "doas", "eatmydata", "entr", "expect", "fakeroot", "faketime", "firejail", "flatpak",
    "flock", "ld.so", "ltrace", "newgrp", "nsenter", "numactl", "parallel", "perf", "pkexec", "prlimit", "proot",
    "pwsh", "rlwrap", "run-parts", "runuser", "screen", "script", "setarch", "setpriv", "sg", "socat", "softlimit",
    "ssh", "ssh-agent", "start-stop-daemon", "strace", "su", "sudo", "systemd-inhibit", "systemd-nspawn",
    "systemd-run", "taskset", "time", "tmux", "unbuffer", "unshare", "valgrind", "watch", "xargs", "xvfb-run",
})  # fmt: skip
MOST_LINKS = 40
FIND_ACTIONS = frozenset({"-exec", "-execdir", "-ok", "-okdir"})
# What makes a loader or an interpreter run code that is not on the command line. The owner's own values may stay.
LOADER_VARIABLES = re.compile(
    r"PATH|HOME|XDG_CONFIG_HOME|LD_.*|DYLD_.*|GCONV_PATH|LOCPATH|OPENSSL_CONF|OPENSSL_MODULES|OPENSSL_ENGINES"
    r"|IFS|ENV|BASH_ENV|BASH_FUNC_.*|SHELLOPTS|BASHOPTS|PS4|PROMPT_COMMAND|ZDOTDIR|SHELL"
    r"|PYTHON(STARTUP|PATH|HOME|INSPECT|BREAKPOINT|USERBASE|PLATLIBDIR|EXECUTABLE|WARNINGS|CASEOK|PYCACHEPREFIX)"
    r"|PERL5?(LIB|OPT|DB)|PERLLIB|RUBY(OPT|LIB)|GEM_(HOME|PATH)|BUNDLE_.*|NODE_(OPTIONS|PATH)|(?i:npm_config)_.*"
    r"|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH|LUA_(INIT|PATH|CPATH).*|PHP_INI_SCAN_DIR|PHPRC"
    r"|DOTNET_STARTUP_HOOKS|RUSTC.*|CARGO_.*|GOFLAGS|RSYNC_RSH|TAR_OPTIONS|MAKEFLAGS|GNUMAKEFLAGS|MAKEFILES|TCLLIBPATH"
    r"|GIT_.*|SSH_ASKPASS|VISUAL|EDITOR|BROWSER|(.*_)?PAGER|MANPAGER|LESSOPEN|LESSCLOSE",
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

    flags: str
    valued: frozenset[str] = frozenset()
    words: int = 0


WRAPPERS = {
    "env": _Wrapper("", frozenset({"-u", "--unset"})),
    "nice": _Wrapper(r"-\d+", frozenset({"-n", "--adjustment"})),
    "ionice": _Wrapper("-t|--ignore", frozenset({"-c", "--class", "-n", "--classdata"})),
    "nohup": _Wrapper(""),
    "setsid": _Wrapper("-[cfw]+|--ctty|--fork|--wait"),
    "stdbuf": _Wrapper("", frozenset({"-i", "--input", "-o", "--output", "-e", "--error"})),
    "timeout": _Wrapper(
        "-v|--preserve-status|--foreground|--verbose", frozenset({"-k", "--kill-after", "-s", "--signal"}), words=1
    ),
}


class AllowCommands:
    """An `authorize` hook that lets only certain programs be started.

    A name is looked up once, in the PATH of now; a command may then be started if the file that it resolves to is
    that one. So a program of the same name in another folder is refused, and a link to an allowed one is not. It looks
    at the argv, never at shell text:

    - a shell may be listed, but is never started with `-c`
    - a multi-call binary (busybox) is refused unless it is listed by its own name, which allows all of its applets
    - `env`, `nice`, `ionice`, `nohup`, `setsid`, `stdbuf` and `timeout` are looked through, listed or not, if all of
      their options are known; others (`xargs`, `sudo`, `ssh`...) cannot be listed, nor can `find -exec` be run
    - variables that make a loader or an interpreter run other code must have the values of `trusted` (default: the
      owner's environment)

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
    ...         print(error)
    Agent 'a' may not run 'sh'
    'sh' is not allowed
    """

    def __init__(self, *commands: str, trusted: Optional[Mapping[str, str]] = None) -> None:
        self._trusted = dict(os.environ if trusted is None else trusted)
        self._path = self._trusted.get("PATH", os.defpath)
        self._files: set[str] = set()
        for command in commands:
            if not isinstance(command, str):
                raise TypeError(f"a command must be a str, not {type(command).__name__}")
            found = _resolve(command, self._path, None)
            if found is None:
                raise ValueError(f"there is no command {command!r} here")
            names = {os.path.basename(command), os.path.basename(found)}
            if names & OPAQUE:
                raise ValueError(f"{command!r} runs other commands, which cannot be checked")
            if os.path.basename(found) in MULTI_CALL and len(names) > 1:
                raise ValueError(
                    f"{command!r} is {os.path.basename(found)}, which is many programs: list that, to allow all of them"
                )
            self._files.add(found)

    def __call__(self, agent_id: str, argv: tuple[str, ...], cwd: Optional[str], env: Mapping[str, str]) -> bool:
        """Return True for an argv that may be started; else raise NotAuthorizedError, which says why not."""
        reason = self.refusal(argv, cwd, env)
        if reason is not None:
            sentence = f"Agent {agent_id!r} may not run {argv[0]!r}"
            raise NotAuthorizedError(sentence, reason, agent_id=agent_id, command=argv[0])
        return True

    def refusal(self, argv: tuple[str, ...], cwd: Optional[str], env: Mapping[str, str]) -> Optional[str]:
        """Say why an argv may not be started; None if it may."""
        for name, value in env.items():
            if self._loads(name, value):
                return f"{name} can make a program run other code"
        path = env.get("PATH", os.defpath)
        words = list(argv)
        wrapped = False
        while words:
            try:
                found = _resolve(words[0], path, cwd)
            except PermissionError:
                return f"{words[0]!r} may be another file when it is run"
            if found is None:
                return f"there is no command {words[0]!r}" if wrapped else None  # the start says so itself
            name = os.path.basename(found)
            if name in WRAPPERS and found == _resolve(name, self._path, None):
                rest = self._unwrapped(name, words)
                if rest is None:
                    return f"{words[0]!r} has options that cannot be seen through"
                if rest or found not in self._files:
                    words, wrapped = rest, True
                    continue
            return _refused_arguments(words, found) if found in self._files else f"{words[0]!r} is not allowed"
        return "a wrapper without a command"

    def _loads(self, name: str, value: str) -> bool:
        """Say whether a variable makes a program run other code than the owner's own would."""
        own = (self._trusted.get(name), FOR_AGENTS.get(name))
        return LOADER_VARIABLES.fullmatch(name) is not None and value not in own

    def _unwrapped(self, name: str, words: list[str]) -> Optional[list[str]]:
        """Return the command that a wrapper runs; None if one of its options is not known."""
        wrapper = WRAPPERS[name]
        at = 1
        while at < len(words) and words[at].startswith("-"):
            word = words[at]
            at += 1
            if word == "--":
                break
            option, equals, value = word.partition("=")
            if not word.startswith("--") and word[:2] in wrapper.valued:
                option, value = word[:2], word[2:]
            elif re.fullmatch(wrapper.flags, word):
                continue
            if option not in wrapper.valued:
                return None
            if not value and not equals:
                value = "".join(words[at : at + 1])
                at += 1
            if name == "env" and LOADER_VARIABLES.fullmatch(value):
                return None
        while name == "env" and at < len(words) and "=" in words[at]:
            variable, _, value = words[at].partition("=")
            if self._loads(variable, value):
                return None
            at += 1
        return words[at + wrapper.words :]


def _resolve(command: str, path: str, cwd: Optional[str]) -> Optional[str]:
    """Return the real path of what would be run; None if there is none. Raises PermissionError; see `_real`."""
    here = cwd or os.getcwd()
    if os.sep in command:
        found = os.path.join(here, command)
        real = _real(found)
        return real if os.access(found, os.X_OK) and os.path.isfile(found) else None
    # Popen looks in relative folders of PATH from the new directory.
    folders = [os.path.join(here, folder) for folder in path.split(os.pathsep)]
    named = shutil.which(command, path=os.pathsep.join(folders))
    return None if named is None else _real(named)


def _real(path: str) -> str:
    """Follow links, as `os.path.realpath`; raise PermissionError for a path that leads through /proc or /dev.

    There the same name is another file for another process.
    """
    left = os.path.join(os.getcwd(), path).split(os.sep)
    left.reverse()
    here = os.sep
    links = 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, part)
        if there in ("/proc", "/dev"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        try:
            target = os.readlink(there)
        except OSError:
            here = there
            continue
        links += 1
        if links > MOST_LINKS:
            raise PermissionError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith(os.sep):
            here = os.sep
        left += reversed(target.split(os.sep))
    return here


def _refused_arguments(words: list[str], found: str) -> Optional[str]:
    """Say what is wrong with the arguments of a program that is allowed."""
    names = {os.path.basename(words[0]), os.path.basename(found)}
    stems = {re.split(r"[-.\d]", name)[0] for name in names}
    if stems & SHELLS and not _is_plain_shell(words):
        return "a shell is started with a script and harmless options, not with -c"
    if stems & OTHER_SHELLS and any(word.startswith("-") for word in words[1:]):
        return "this shell is started without options"
    if "find" in names and FIND_ACTIONS.intersection(words):
        return "find may not run commands"
    if "git" in names and not _is_plain_git(words):
        return "git -c can make it run any command"
    return None


def _is_plain_shell(words: list[str]) -> bool:
    """Say whether all options before a script are known to be harmless."""
    at = 1
    while at < len(words) and words[at][:1] in ("-", "+"):
        word = words[at]
        at += 1
        if word in ("-o", "+o", "-O", "+O"):
            at += 1
        elif word in ("-", "--"):
            break
        elif not SHELL_OPTIONS.fullmatch(word):
            return False
    return True


def _is_plain_git(words: list[str]) -> bool:
    """Say whether git takes no configuration, and no programs of its own, from the command line."""
    at = 1
    while at < len(words) and words[at].startswith("-"):
        if words[at].startswith(("-c", "--config-env", "--exec-path")):
            return False
        at += 2 if words[at] in ("-C", "--git-dir", "--work-tree", "--namespace") else 1
    return words[at : at + 1] != ["clone"] or not any(word.startswith(("-c", "--config")) for word in words[at:])
