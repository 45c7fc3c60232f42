"""`ProcessManager` and `Agent`: processes by id, for many agents, within limits."""

from __future__ import annotations

import builtins
import math
import os
import time
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Callable, NoReturn, Optional, TextIO, TypedDict, Union

from procpool.child import Child
from procpool.errors import NotAuthorizedError, ProcessNotFoundError, TimeoutExpired
from procpool.output.buffer import Decoding, LineBuffer
from procpool.output.reader import Reader
from procpool.output.search import Pattern, compile_patterns
from procpool.pool import Attempt, Pool
from procpool.process import DEFAULT, Process, Ready, not_found, seconds, terminal_size, whole_number
from procpool.snapshot import Exit, Line, Match, Output, ProcessInfo, Screen, Usage, Wake
from procpool.system.launch import Size, launch
from procpool.system.tree import MARK
from procpool.turn import Turn, standing
from procpool.waiting import Searcher, Watch, wait_any

if TYPE_CHECKING:
    from concurrent.futures import Future

    from typing_extensions import Unpack

Word = Union[str, os.PathLike[str]]
Command = Union[Word, Sequence[Word]]
TERMINAL = (24, 80)  # its rows and columns, where no size is asked for


# In the form of a class the annotations would be strings, each of which is compiled: 2 ms of the import.
StartOptions = TypedDict(  # noqa: UP013
    "StartOptions",
    {
        "cwd": Optional[Word],
        "env": Optional[Mapping[str, str]],
        "extra_env": Optional[Mapping[str, str]],
        "stdin": bool,
        "merge_stderr": bool,
        "pty": bool,
        "size": tuple[int, int],
        "echo": bool,
        "prompt": Optional[Pattern],
        "quiet": Optional[float],
        "encoding": str,
        "errors": str,
        "max_lines": Optional[int],
        "max_bytes": Optional[int],
        "max_age_secs": Optional[float],
        "idle_secs": Optional[float],
        "ready": Optional[Ready],
        "ready_timeout": Optional[float],
    },
    total=False,
)
StartOptions.__doc__ = """The options of `ProcessManager.start`, for those who pass them on."""


class ById(ABC):
    """The verbs of `Process`, with the id first. See there for what each one does."""

    @abstractmethod
    def __getitem__(self, process_id: str) -> Process:
        """Return a process by its id. Raises `ProcessNotFoundError`."""

    def write(self, process_id: str, data: Union[str, bytes], *, timeout: Optional[float] = DEFAULT) -> int:
        """Write to a process's stdin; see `Process.write`."""
        return self[process_id].write(data, timeout=timeout)

    def send_line(self, process_id: str, line: str = "", *, timeout: Optional[float] = DEFAULT) -> int:
        """Write a line to a process's stdin; see `Process.send_line`."""
        return self[process_id].send_line(line, timeout=timeout)

    def send_keys(self, process_id: str, *keys: str, timeout: Optional[float] = DEFAULT) -> int:
        """Press keys on a process's terminal; see `Process.send_keys`."""
        return self[process_id].send_keys(*keys, timeout=timeout)

    def paste(self, process_id: str, text: str, *, timeout: Optional[float] = DEFAULT) -> int:
        """Paste text into a process's terminal; see `Process.paste`."""
        return self[process_id].paste(text, timeout=timeout)

    def resize(self, process_id: str, rows: int, cols: int) -> None:
        """Change the size of a process's terminal; see `Process.resize`."""
        self[process_id].resize(rows, cols)

    def screen(self, process_id: str) -> Screen:
        """Return what a process's terminal shows; see `Process.screen`."""
        return self[process_id].screen()

    def close_stdin(self, process_id: str) -> None:
        """Close a process's stdin; see `Process.close_stdin`."""
        self[process_id].close_stdin()

    def read(
        self,
        process_id: str,
        *,
        timeout: float = 0.0,
        since: Optional[str] = None,
        max_lines: Optional[int] = None,
    ) -> Output:
        """Return what nobody has read yet; see `Process.read`."""
        return self[process_id].read(timeout=timeout, since=since, max_lines=max_lines)

    def tail(self, process_id: str, n: int = 20) -> Output:
        """Return the newest lines; see `Process.tail`."""
        return self[process_id].tail(n)

    def expect(
        self,
        process_id: str,
        pattern: Union[Pattern, Sequence[Pattern]],
        timeout: Optional[float] = DEFAULT,
        *,
        stream: Optional[str] = None,
    ) -> Match:
        """Wait until a line of output matches; see `Process.expect`."""
        return self[process_id].expect(pattern, timeout, stream=stream)

    def ask(
        self,
        process_id: str,
        line: str,
        timeout: Optional[float] = DEFAULT,
        *,
        prompt: Optional[Pattern] = None,
        quiet: Optional[float] = None,
    ) -> Output:
        """Write a line to a REPL and return its answer; see `Process.ask`."""
        return self[process_id].ask(line, timeout, prompt=prompt, quiet=quiet)

    def waiting_for_input(self, process_id: str) -> Optional[bool]:
        """Say whether a process waits for input; see `Process.waiting_for_input`."""
        return self[process_id].waiting_for_input

    def wait_for_input(self, process_id: str, timeout: Optional[float] = DEFAULT) -> Optional[bool]:
        """Wait until a process waits for input; see `Process.wait_for_input`."""
        return self[process_id].wait_for_input(timeout)

    def wait(self, process_id: str, timeout: Optional[float] = None) -> Optional[int]:
        """Wait until a process exits; see `Process.wait`."""
        return self[process_id].wait(timeout)

    def kill(self, process_id: str, *, grace: Optional[float] = None) -> Exit:
        """End a process's whole tree and forget it; see `Process.kill`."""
        return self[process_id].kill(grace=grace)

    def terminate(self, process_id: str) -> None:
        """Ask a process's tree to end; see `Process.terminate`."""
        self[process_id].terminate()

    def send_signal(self, process_id: str, sig: int) -> None:
        """Send a signal to a process; see `Process.send_signal`."""
        self[process_id].send_signal(sig)

    def interrupt(self, process_id: str) -> None:
        """Interrupt a process; see `Process.interrupt`."""
        self[process_id].interrupt()

    def info(self, process_id: str) -> ProcessInfo:
        """Return what is known of a process; see `Process.info`."""
        return self[process_id].info()

    def usage(self, process_id: str) -> Usage:
        """Return what a process's tree uses; see `Process.usage`."""
        return self[process_id].usage()

    def follow(
        self, process_id: str, *, since: Optional[str] = None, timeout: Optional[float] = None
    ) -> Iterator[Line]:
        """Iterate over the lines as they come; see `Process.follow`."""
        return self[process_id].follow(since=since, timeout=timeout)

    def stream(self, process_id: str, file: Optional[TextIO] = None) -> None:
        """Write the output to a text file as it comes; see `Process.stream`."""
        self[process_id].stream(file)

    def communicate(
        self, process_id: str, input: Optional[Union[str, bytes]] = None, timeout: Optional[float] = DEFAULT
    ) -> Output:
        """Write `input`, wait for the exit, and return the output; see `Process.communicate`."""
        return self[process_id].communicate(input, timeout)

    def exit_future(self, process_id: str) -> Future[Optional[int]]:
        """Return a future of the exit code; see `Process.exit_future`."""
        return self[process_id].exit_future()

    @abstractmethod
    def _processes(self) -> builtins.list[Process]:
        """Return all processes."""

    def wait_any(
        self,
        ids: Optional[Iterable[str]] = None,
        *,
        pattern: Union[Pattern, Sequence[Pattern], None] = None,
        output: bool = False,
        quiet: Optional[float] = None,
        input: bool = False,
        since: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
    ) -> Wake:
        """Wait until one of several processes exits, or does what else is asked for; say which one, and what it was.

        - `ids`: of which processes (default: of all that there are now, and each exit is then told once, as
          `os.wait` does; of those that are named, an exit wakes at once)
        - `pattern`: also for a line that matches, as `expect` does, from where the last search ended
        - `output`: also for output that nobody has read
        - `quiet`: also for so many seconds without output, since the last that nobody has read, or else since now
        - `input`: also for one that waits for input, as `wait_for_input` tells
        - `since`: cursors, by id, from which to look in place of all that; nothing is moved then

        Waits up to `timeout` seconds (default: for ever), and sleeps meanwhile, however many processes there are.
        Raises `TimeoutExpired`; `ProcessNotFoundError`; `ManagerClosedError`; ValueError if there is no process.

        >>> from procpool import ProcessManager
        >>> with ProcessManager() as manager:
        ...     cat, true = manager.start("a", "cat"), manager.start("a", "true")
        ...     manager.wait_any().reason
        'exit'
        """
        limit = seconds("timeout", timeout, optional=True)
        deadline = None if limit is None else time.monotonic() + limit
        silence = seconds("quiet", quiet, optional=True)
        patterns = None if pattern is None else compile_patterns(pattern)  # type: ignore[arg-type]
        if ids is not None and (isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable)):
            raise TypeError(f"ids must be a list of ids, not a single {type(ids).__name__}")
        if since is not None and not isinstance(since, Mapping):
            raise TypeError(f"since must be a mapping of ids to cursors, not {type(since).__name__}")
        if ids is None:
            processes = [one for one in self._processes() if one.alive or not one._child.exit_told]
        else:
            processes = [self[process_id] for process_id in ids]
        if not processes:
            raise ValueError("there is no process to wait for")
        cursors = {} if since is None else since
        strangers = set(cursors).difference(process.id for process in processes)
        if strangers and ids is not None:
            raise ValueError(f"since has cursors of others than ids names: {', '.join(map(str, strangers))}")
        watches = []
        with ExitStack() as stack:
            for process in processes:
                child = process._child
                positions = process._positions(cursors[child.id]) if child.id in cursors else None
                searcher = None
                if patterns is not None:
                    names = list(child.buffers)
                    searcher = Searcher(child, patterns, names, process._pool.duties, positions)
                    stack.enter_context(searcher)
                watches.append(
                    Watch(
                        child,
                        searcher=searcher,
                        output=output,
                        quiet=silence,
                        turn=Turn(child, process._pool.system, child.otherwise) if input else None,
                        positions=positions,
                        once=ids is None,
                    )
                )
            wake = wait_any(watches, deadline)
        if wake is None:
            raise TimeoutExpired(
                f"None of {len(processes)} processes woke the wait in {limit} seconds",
                ", ".join(process.id for process in processes),
                process_id=processes[0].id,
                cmd="wait_any",
                timeout=limit,
                output=None,
            )
        return wake


class ProcessManager(ById):
    """Keeps processes for any number of agents: starts them, finds them by id, and ends them.

    - `max_per_agent`, `max_total`: how many trees may live at once; None: any number
    - `timeout`: of `write` and `expect`, in seconds, where the call gives none; None: for ever
    - `grace`: how many seconds a tree has to end after TERM
    - `max_lines`, `max_bytes`, `max_line_bytes`: what is kept of each stream; longer lines come in pieces
    - `max_total_bytes`: what is kept of all streams together; each then has an equal share of it, at the most
    - `keep_exited`: how many ended processes of each agent stay readable
    - `max_age_secs`, `idle_secs`: the timer ends a process this long after its start, or after the last byte that
      went either way; it looks at least every `cleanup_interval` seconds
    - `id_prefix`: ids are this and a number
    - `env`: the environment of all processes, in place of ours
    - `authorize`: called before each start as `authorize(agent_id, argv, cwd, env)`; anything false refuses it
    - `guardian`: on Linux, a helper process ends all trees when this process dies, however it dies

    The constructor starts nothing. Everything is thread-safe. As a context manager it closes on leaving; dropped
    without `close`, it ends its trees and warns.

    >>> from procpool import ProcessManager
    >>> with ProcessManager() as manager:
    ...     echo = manager.start("alice", "echo", ["hello"])
    ...     status = manager.wait(echo)
    ...     manager.read(echo).stdout
    ['hello']
    """

    def __init__(
        self,
        max_per_agent: Optional[int] = 5,
        *,
        max_total: Optional[int] = None,
        timeout: Optional[float] = 30.0,
        grace: float = 3.0,
        max_lines: int = 1000,
        max_bytes: int = 1 << 20,
        max_line_bytes: int = 1 << 16,
        max_total_bytes: Optional[int] = None,
        keep_exited: int = 32,
        max_age_secs: Optional[float] = None,
        idle_secs: Optional[float] = None,
        cleanup_interval: float = 60.0,
        id_prefix: str = "proc_",
        env: Optional[Mapping[str, str]] = None,
        authorize: Optional[Callable[[str, tuple[str, ...], Optional[str], Mapping[str, str]], object]] = None,
        guardian: bool = True,
    ) -> None:
        self.max_per_agent = _limit("max_per_agent", max_per_agent)
        self.timeout = seconds("timeout", timeout, optional=True)
        self._max_lines = whole_number("max_lines", max_lines)
        self._max_bytes = whole_number("max_bytes", max_bytes)
        self._max_line_bytes = whole_number("max_line_bytes", max_line_bytes)
        if not isinstance(id_prefix, str):
            raise TypeError(f"id_prefix must be a str, not {type(id_prefix).__name__}")
        if not isinstance(guardian, bool):
            raise TypeError(f"guardian must be True or False, not {type(guardian).__name__}")
        if authorize is not None and not callable(authorize):
            raise TypeError(f"authorize must be callable, not {type(authorize).__name__}")
        self._env = None if env is None else _environment("env", env)
        self._authorize = authorize
        finite_grace = seconds("grace", grace)
        interval = seconds("cleanup_interval", cleanup_interval)
        if finite_grace is None:
            raise ValueError("grace must be finite")
        if not interval:
            raise ValueError("cleanup_interval must be finite and more than 0")
        self._pool = Pool(
            max_per_agent=self.max_per_agent,
            max_total=_limit("max_total", max_total),
            max_total_bytes=_limit("max_total_bytes", max_total_bytes),
            keep_exited=whole_number("keep_exited", keep_exited, least=0),
            grace=finite_grace,
            max_age_secs=seconds("max_age_secs", max_age_secs, optional=True),
            idle_secs=seconds("idle_secs", idle_secs, optional=True),
            cleanup_interval=interval,
            id_prefix=id_prefix,
            guardian=guardian,
        )
        finalizer = weakref.finalize(self, _abandon, self._pool)
        finalizer.atexit = False  # type: ignore[misc]  # the interpreter's end is seen to elsewhere

    # Starting

    def start(
        self,
        agent_id: str,
        command: Command,
        args: Sequence[Word] = (),
        *,
        cwd: Optional[Word] = None,
        env: Optional[Mapping[str, str]] = None,
        extra_env: Optional[Mapping[str, str]] = None,
        stdin: bool = True,
        merge_stderr: bool = False,
        pty: bool = False,
        size: tuple[int, int] = TERMINAL,
        echo: bool = True,
        prompt: Optional[Pattern] = None,
        quiet: Optional[float] = None,
        encoding: str = "utf-8",
        errors: str = "replace",
        max_lines: Optional[int] = None,
        max_bytes: Optional[int] = None,
        max_age_secs: Optional[float] = None,
        idle_secs: Optional[float] = None,
        ready: Optional[Ready] = None,
        ready_timeout: Optional[float] = DEFAULT,
    ) -> str:
        """Start a process for an agent and return its id. Waits for nothing but the start itself.

        `command` may be the whole argv as a list. No shell runs: `start(agent, "sh", ["-c", script])` asks for one.

        - `env` replaces the environment, as `Popen`'s does; `extra_env` adds to it
        - `stdin=False`: stdin is /dev/null
        - `merge_stderr`: both streams come as stdout, in the child's own order
        - `pty`: give it a terminal of `size` (rows, cols) instead of pipes, which controls its session: one stream, all
          as stdout; `echo=False`: it does not show what is typed. Without TERM it gets `xterm-256color`
        - `prompt`, `quiet`: for `ask` and `wait_for_input` where the system does not tell whether it waits for input: a
          regular expression that matches at the end of its output then, or so many seconds without output
        - `encoding`: any that extends ASCII; `errors`: replace, backslashreplace, surrogateescape or ignore
        - `max_lines`, `max_bytes`, `max_age_secs`, `idle_secs`: in place of the manager's (`math.inf`: no age)
        - `ready`: wait until it is ready: a pattern that a line of its output matches, as in `expect`; a TCP port of
          this machine (a number) that accepts connections; or a function of the `Process`, asked again and again
          until what it returns is true. Up to `ready_timeout` seconds (default: the manager's `timeout`)

        Raises `LimitExceededError`, `NotAuthorizedError`, `StartError` (`CommandNotFoundError`; or it ended before it
        was ready, or the port was taken), `TimeoutExpired` (it was not ready in time), `ManagerClosedError`; TypeError
        or ValueError for a wrong argument. Then nothing is left of it.
        """
        return self.spawn(
            agent_id,
            command,
            args,
            cwd=cwd,
            env=env,
            extra_env=extra_env,
            stdin=stdin,
            merge_stderr=merge_stderr,
            pty=pty,
            size=size,
            echo=echo,
            prompt=prompt,
            quiet=quiet,
            encoding=encoding,
            errors=errors,
            max_lines=max_lines,
            max_bytes=max_bytes,
            max_age_secs=max_age_secs,
            idle_secs=idle_secs,
            ready=ready,
            ready_timeout=ready_timeout,
        ).id

    def spawn(
        self,
        agent_id: str,
        command: Command,
        args: Sequence[Word] = (),
        *,
        cwd: Optional[Word] = None,
        env: Optional[Mapping[str, str]] = None,
        extra_env: Optional[Mapping[str, str]] = None,
        stdin: bool = True,
        merge_stderr: bool = False,
        pty: bool = False,
        size: tuple[int, int] = TERMINAL,
        echo: bool = True,
        prompt: Optional[Pattern] = None,
        quiet: Optional[float] = None,
        encoding: str = "utf-8",
        errors: str = "replace",
        max_lines: Optional[int] = None,
        max_bytes: Optional[int] = None,
        max_age_secs: Optional[float] = None,
        idle_secs: Optional[float] = None,
        ready: Optional[Ready] = None,
        ready_timeout: Optional[float] = DEFAULT,
    ) -> Process:
        """Start a process as `start` does, and return it instead of its id."""
        _name("agent_id", agent_id)
        argv = _argv(command, args)
        directory = None if cwd is None else _word("cwd", cwd)
        environment = self._environ(env, extra_env)
        decoding = Decoding(encoding, errors)
        lines = self._max_lines if max_lines is None else whole_number("max_lines", max_lines)
        most = self._max_bytes if max_bytes is None else whole_number("max_bytes", max_bytes)
        age = _own_age("max_age_secs", max_age_secs)
        idle = _own_age("idle_secs", idle_secs)
        limit = self.timeout if ready_timeout is DEFAULT else seconds("ready_timeout", ready_timeout, optional=True)
        wait_until_ready = None
        if ready is not None:
            from procpool.ready import readiness

            wait_until_ready = readiness(ready)
        for name, value in (("stdin", stdin), ("merge_stderr", merge_stderr), ("pty", pty), ("echo", echo)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
        rows, cols = terminal_size(size)
        terminal = Size(rows, cols, echo) if pty else None
        if pty:
            if not stdin:
                raise ValueError("stdin=False and pty=True exclude each other: a terminal is an input, too")
            environment.setdefault(b"TERM", b"xterm-256color")
        elif (rows, cols) != TERMINAL:
            raise ValueError("size is a terminal's: it needs pty=True")
        otherwise = standing(prompt, seconds("quiet", quiet, optional=True))
        self._pool.check()
        if self._authorize is not None and not self._authorize(agent_id, argv, directory, _decoded(environment)):
            raise NotAuthorizedError(
                f"Agent {agent_id!r} may not run {argv[0]!r}",
                "the manager's authorize hook refused it",
                agent_id=agent_id,
                command=argv[0],
            )

        def make_buffer() -> LineBuffer:
            return LineBuffer(lines, most, self._max_line_bytes)

        def make(reader: Reader, changed: Callable[[], None], attempt: Attempt) -> Child:
            chain = os.environb.get(MARK, b"")  # of our own owners, whatever environment is given
            environment[MARK] = b":".join(filter(None, (chain, attempt.token)))
            launch(
                argv,
                cwd=directory,
                env=environment,
                stdin=stdin,
                merge_stderr=merge_stderr,
                pty=terminal,
                into=attempt.launch,
            )
            return Child(
                attempt.launch,
                token=attempt.token.decode(),
                born=attempt.born,
                agent_id=agent_id,
                argv=argv,
                cwd=directory,
                merge_stderr=merge_stderr or pty,
                pty=terminal,
                otherwise=otherwise,
                decoding=decoding,
                make_buffer=make_buffer,
                reader=reader,
                changed=changed,
                max_age_secs=age,
                idle_secs=idle,
            )

        process = Process(self._pool.start(agent_id, make), self._pool, self)
        if wait_until_ready is not None:
            try:
                wait_until_ready(process, limit)
            except BaseException:  # Ctrl-C included; it is raised again
                self._pool.end([process._child], by="close", grace=0.0)
                raise
        return process

    def agent(self, agent_id: str, *, max_processes: Optional[int] = None) -> Agent:
        """Return what an agent may see and do: its own processes. `max_processes` is a limit for it alone."""
        _name("agent_id", agent_id)
        if max_processes is not None:
            self._pool.limits[agent_id] = whole_number("max_processes", max_processes)
        return Agent(self, agent_id)

    # Finding

    def __getitem__(self, process_id: str) -> Process:
        """Return a process by its id. Raises `ProcessNotFoundError`."""
        _name("process_id", process_id)
        child = self._pool.get(process_id)
        if child is None:
            raise not_found(process_id)
        return Process(child, self._pool, self)

    def __contains__(self, process_id: object) -> bool:
        return isinstance(process_id, str) and self._pool.get(process_id) is not None

    def _processes(self) -> builtins.list[Process]:
        self._pool.get("")
        return [Process(child, self._pool, self) for child in self._pool.all()]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids, oldest first."""
        self._pool.get("")
        return iter([child.id for child in self._pool.all()])

    def list(self, agent_id: Optional[str] = None) -> builtins.list[ProcessInfo]:
        """Return a snapshot of every process (of an agent), ended ones included, oldest first."""
        if agent_id is not None:
            _name("agent_id", agent_id)
        self._pool.get("")
        infos = []
        children = self._pool.all(agent_id)
        self._pool.look_behind(children)
        for child in children:
            me = child.guard.check()
            with child.guard.lock:
                child.guard.holder = me
                infos.append(child.info())
        return infos

    def count(self) -> int:
        """Return how many processes are listed."""
        self._pool.get("")
        return len(self._pool.children)

    # Ending

    def kill_all(self, agent_id: Optional[str] = None) -> dict[str, Exit]:
        """End and forget all processes (of an agent), all at once; return how each ended, by id."""
        if agent_id is not None:
            _name("agent_id", agent_id)
        self._pool.get("")
        return self._pool.end(self._pool.all(agent_id), by="kill")

    def cleanup(self, max_age_secs: Optional[float] = None, *, idle_secs: Optional[float] = None) -> dict[str, Exit]:
        """End and forget what was started, or last active, at least that many seconds ago; return how each ended.

        Without arguments the ages of the manager, and of single starts, are applied; if the manager has none, what
        has ended is forgotten.
        """
        age = _own_age("max_age_secs", max_age_secs)
        idle = _own_age("idle_secs", idle_secs)
        self._pool.get("")
        if max_age_secs is None and idle_secs is None:
            return self._pool.cleanup(None)
        return self._pool.cleanup((age, idle))

    def close(self) -> dict[str, Exit]:
        """End and forget everything, and end the threads; return how each process ended, by id.

        Blocked calls raise `ManagerClosedError`, and so does every later one by id. Closing twice is fine.
        """
        return self._pool.close()

    def __enter__(self) -> ProcessManager:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ProcessManager cannot be pickled: make one in each process")

    def __repr__(self) -> str:
        state = "closed" if self._pool.closed else f"{len(self._pool.children)} processes"
        return f"<ProcessManager: {state}>"

    # Helpers

    def _environ(self, env: Optional[Mapping[str, str]], extra_env: Optional[Mapping[str, str]]) -> dict[bytes, bytes]:
        if env is not None:
            found = _environment("env", env)
        elif self._env is not None:
            found = dict(self._env)
        else:
            found = dict(os.environb) if os.supports_bytes_environ else {}
        if extra_env is not None:
            found.update(_environment("extra_env", extra_env))
        return found


class Agent(ById):
    """What one agent may see and do: its own processes. Everything that a model or a tenant drives gets one.

    For an id of another agent it answers exactly as for one that never was. It keeps its manager alive. As a
    context manager it ends the agent's processes on leaving.
    """

    def __init__(self, manager: ProcessManager, agent_id: str) -> None:
        self._manager = manager
        self.agent_id = agent_id

    def __getitem__(self, process_id: str) -> Process:
        """Return one of the agent's processes by its id. Raises `ProcessNotFoundError`."""
        process = self._manager[process_id]
        if process.agent_id != self.agent_id:
            raise not_found(process_id)
        return process

    def _processes(self) -> builtins.list[Process]:
        return [process for process in self._manager._processes() if process.agent_id == self.agent_id]

    def start(self, command: Command, args: Sequence[Word] = (), **options: Unpack[StartOptions]) -> str:
        """Start a process for the agent; see `ProcessManager.start`."""
        return self._manager.start(self.agent_id, command, args, **options)

    def spawn(self, command: Command, args: Sequence[Word] = (), **options: Unpack[StartOptions]) -> Process:
        """Start a process for the agent; see `ProcessManager.spawn`."""
        return self._manager.spawn(self.agent_id, command, args, **options)

    def __contains__(self, process_id: object) -> bool:
        if not isinstance(process_id, str):
            return False
        try:
            self[process_id]
        except ProcessNotFoundError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of the agent's processes, oldest first."""
        return iter([info.id for info in self.list()])

    def list(self) -> builtins.list[ProcessInfo]:
        """Return a snapshot of every process of the agent; see `ProcessManager.list`."""
        return self._manager.list(self.agent_id)

    def count(self) -> int:
        """Return how many processes of the agent are listed."""
        return len(self.list())

    def kill_all(self) -> dict[str, Exit]:
        """End and forget all processes of the agent; see `ProcessManager.kill_all`."""
        return self._manager.kill_all(self.agent_id)

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self._manager._pool.closed:
            self.kill_all()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Agent cannot be pickled: make one in each process")

    def __repr__(self) -> str:
        return f"<Agent {self.agent_id!r} of {self._manager!r}>"


def _abandon(pool: Pool) -> None:
    """End the trees of a manager that was dropped."""
    living = pool.abandon()
    if living:
        warnings.warn(
            f"a ProcessManager was dropped with living processes, which are ended now: {', '.join(living)}; "
            "use `with`, or close()",
            ResourceWarning,
            stacklevel=2,
        )


def _limit(name: str, value: object) -> Optional[int]:
    return None if value is None else whole_number(name, value)


def _own_age(name: str, value: Optional[float]) -> Optional[float]:
    """Check an age: None is not given, infinity is none at all."""
    found = seconds(name, value, optional=True)
    return math.inf if found is None and value is not None else found


def _name(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value and name == "agent_id":
        raise ValueError(f"{name} must not be empty")
    return value


def _word(name: str, value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str or a path, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{name} must not hold a NUL byte: {value!r}")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} cannot be encoded for the system: {value!r} ({error.reason})") from None
    return value


def _argv(command: object, args: object) -> tuple[str, ...]:
    if isinstance(command, (list, tuple)):
        if not command:
            raise ValueError("command must not be an empty list")
        words = [_word(f"command[{index}]", word) for index, word in enumerate(command)]
    elif isinstance(command, (str, os.PathLike)):
        words = [_word("command", command)]
    else:
        raise TypeError(f"command must be a str, a path or a list of them, not {type(command).__name__}")
    if not words[0]:
        raise ValueError("command must not be empty")
    if args is None or isinstance(args, (str, bytes)):
        raise TypeError(f"args must be a list of str, not {type(args).__name__}")
    try:
        items = list(args)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"args must be a list of str, not {type(args).__name__}") from None
    return tuple(words + [_word(f"args[{index}]", word) for index, word in enumerate(items)])


def _environment(name: str, env: object) -> dict[bytes, bytes]:
    if not isinstance(env, Mapping):
        raise TypeError(f"{name} must be a mapping of str to str, not {type(env).__name__}")
    found = {}
    for key, value in env.items():
        _word(f"a name in {name}", key)
        if not key or "=" in key:
            raise ValueError(f"{name} has a name that is empty or holds '=': {key!r}")
        found[os.fsencode(key)] = os.fsencode(_word(f"{name}[{key!r}]", value))
    return found


def _decoded(environment: Mapping[bytes, bytes]) -> dict[str, str]:
    return {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
