"""The one program that the tests run: it plays every part, step by step.

    python child.py STEP [STEP ...]

A step is `name` or `name:argument`. Whatever happens to the test, each process ends within a minute and a half.
"""

import _signal as signal  # json and signal, with what they import, take as long as all the rest: most steps need neither
import os
import sys
import time

LIFE_SECS = 90


def run(steps):
    for number, step in enumerate(steps):
        name, _, argument = step.partition(":")
        if name == "rest":  # the remaining words are no steps
            return write(1, to_json(steps[number + 1 :]))
        STEPS[name](argument)
    return None


def write(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def to_json(value):
    import json

    return json.dumps(value).encode() + b"\n"


def from_json(text):
    import json

    return json.loads(text)


def unescape(text):
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def out(text):
    """Write to stdout, Python's escapes resolved: `out:hello\\n`."""
    write(1, unescape(text))


def err(text):
    """Write to stderr, likewise."""
    write(2, unescape(text))


def lines(argument):
    """Write numbered lines, in large pieces: `lines:COUNT` or `lines:COUNT:FD:PREFIX`."""
    count, fd, prefix = (argument.split(":") + ["1", "line"][argument.count(":") :])[:3]
    numbers = range(int(count))
    for begin in range(0, int(count), 1000):
        write(int(fd), "".join(f"{prefix} {n}\n" for n in numbers[begin : begin + 1000]).encode())


def zeros(count):
    """Write so many bytes without a newline."""
    left = int(count)
    block = b"0" * 65536
    while left:
        write(1, block[: min(left, len(block))])
        left -= min(left, len(block))


def forever(_):
    """Write lines without an end."""
    block = b"y\n" * 4096
    while True:
        write(1, block)


def line(_):
    """Read one line of stdin, byte by byte, so that nothing after it is taken."""
    while os.read(0, 1) not in (b"\n", b""):
        pass


def copy(_):
    """Copy stdin to stdout."""
    while True:
        data = os.read(0, 65536)
        if not data:
            return
        write(1, data)


def count(_):
    """Read stdin to its end and say how many bytes there were."""
    total = 0
    while True:
        data = os.read(0, 65536)
        if not data:
            return write(1, b"%d bytes\n" % total)
        total += len(data)


def wait(_):
    """Do nothing, for as long as this lives, but what signals ask for: `pause` sleeps through one that comes just before."""
    mine, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs)
    while True:
        os.read(mine, 1)


def ignore(name):
    """Ignore a signal."""
    signal.signal(getattr(signal, name), signal.SIG_IGN)


def on(argument):
    """Run other steps at a signal: `on:SIGTERM:["out:bye", "exit:0"]`."""
    name, _, steps = argument.partition(":")
    signal.signal(getattr(signal, name), lambda *_: run(from_json(steps)))


def close(fd):
    """Close an fd."""
    os.close(int(fd))


def leave(code):
    """Exit with a code."""
    os._exit(int(code))


def suicide(name):
    """Die of a signal."""
    signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.kill(os.getpid(), getattr(signal, name))


def stop(_):
    """Stop, as by Ctrl-Z."""
    os.kill(os.getpid(), signal.SIGSTOP)


def fork(steps):
    """Run other steps in a child: `fork:["pid:child", "wait"]`."""
    if os.fork() == 0:
        signal.alarm(LIFE_SECS)
        run(from_json(steps))
        os._exit(0)


def daemon(steps):
    """Run other steps in a daemon: a session of its own, and a parent that is gone."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    os.setsid()
    fork(steps)
    os._exit(0)


def spawner(path):
    """Start a child every few milliseconds, each of which sleeps; note each in a file. At most 300."""
    for _ in range(300):
        fork('["wait"]')
        note(path)
        time.sleep(0.005)  # the rate at which it spawns is the part that it plays
    wait("")


def hopper(argument):
    """Fork and exit every 2 ms, so that the pid is never the same: `hopper:PATH` or `hopper:PATH:setsid`."""
    path, _, how = argument.partition(":")
    for _ in range(3000):  # six seconds, whatever happens
        if os.fork():
            os._exit(0)
        if how:
            os.setsid()
        note(path)
        time.sleep(0.002)  # the rate at which it hops is the part that it plays


def note(path):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    write(fd, b".")
    os.close(fd)


def exact(_):
    """Have the terminal pass on every byte of output as it is."""
    import termios

    modes = termios.tcgetattr(0)
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(0, termios.TCSANOW, modes)


def setsid(_):
    """Begin a session."""
    os.setsid()


def pid(name):
    """Say which pid this is: `NAME PID`."""
    write(1, f"{name} {os.getpid()}\n".encode())


def facts(_):
    """Say what was given to this process, as JSON."""
    found = {
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "pid": os.getpid(),
        "stdin": os.readlink("/proc/self/fd/0"),
    }
    write(1, to_json(found))


STEPS = {
    "out": out, "err": err, "lines": lines, "zeros": zeros, "forever": forever, "line": line, "copy": copy,
    "count": count, "wait": wait, "ignore": ignore, "on": on, "close": close, "exit": leave, "suicide": suicide,
    "stop": stop, "fork": fork, "setsid": setsid, "pid": pid, "facts": facts, "daemon": daemon,
    "spawner": spawner, "hopper": hopper, "exact": exact,
}  # fmt: skip

if __name__ == "__main__":
    signal.alarm(LIFE_SECS)
    run(sys.argv[1:])
