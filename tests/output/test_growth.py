"""Pipes of noisy streams are made larger, within a budget, and small again when they are calm."""

from __future__ import annotations

import fcntl
import os
import sys

import pytest

from conftest import child, until
from procpool.output import growth
from procpool.output.buffer import LineBuffer
from procpool.output.growth import GROWN_BYTES, PIPE_BYTES, Growth
from procpool.output.reader import Channel, Reader

if not sys.platform.startswith("linux"):
    pytest.skip("pipes: their size can be changed on Linux alone", allow_module_level=True)


class Stream:
    """A pipe of ours."""

    def __init__(self) -> None:
        self.fd, self.other = os.pipe()
        self.size = PIPE_BYTES
        self.big = self.small = 0

    @property
    def holds(self) -> int:
        """What the kernel says."""
        return fcntl.fcntl(self.fd, 1032)  # F_GETPIPE_SZ


@pytest.fixture
def pipe():
    made = []

    def pipe() -> Stream:
        made.append(Stream())
        return made[-1]

    yield pipe
    for stream in made:
        os.close(stream.fd)
        os.close(stream.other)


def shout(grown: Growth, stream: Stream) -> None:
    for _ in range(growth.PROOF_READS):
        grown.note(stream, PIPE_BYTES)


def calm(grown: Growth, stream: Stream, times: int = growth.CALM_READS) -> None:
    for _ in range(times):
        grown.note(stream, 10)


def test_a_noisy_stream_gets_a_larger_pipe(pipe):
    """After enough large reads, not after the first; and a small one when it is calm."""
    grown, stream = Growth(), pipe()
    grown.note(stream, PIPE_BYTES)
    assert stream.holds == stream.size == PIPE_BYTES
    shout(grown, stream)
    assert stream.holds == stream.size == GROWN_BYTES
    assert grown.spare_bytes == growth.BUDGET_BYTES - GROWN_BYTES + PIPE_BYTES
    calm(grown, stream)
    assert stream.holds == stream.size == PIPE_BYTES
    assert grown.spare_bytes == growth.BUDGET_BYTES


def test_the_budget_holds(pipe):
    """Who comes too late gets none, until one of the others is calm, or has ended."""
    grown = Growth()
    room = growth.BUDGET_BYTES // (GROWN_BYTES - PIPE_BYTES)
    streams = [pipe() for _ in range(room + 2)]
    for stream in streams:
        shout(grown, stream)
    assert [stream.holds for stream in streams] == [GROWN_BYTES] * room + [PIPE_BYTES] * 2
    calm(grown, streams[0], 1)
    shout(grown, streams[1])
    shout(grown, streams[-1])
    assert streams[0].holds == streams[-2].holds == PIPE_BYTES
    assert streams[-1].holds == GROWN_BYTES
    grown.forget(streams[1])
    shout(grown, streams[-2])
    assert streams[-2].holds == GROWN_BYTES


def test_what_lies_in_a_pipe_is_not_lost_when_it_shrinks(pipe):
    """The kernel refuses; it is tried again later."""
    grown, stream = Growth(), pipe()
    shout(grown, stream)
    data = b"x" * (PIPE_BYTES * 2)
    os.write(stream.other, data)
    calm(grown, stream)
    assert stream.holds == stream.size == GROWN_BYTES
    assert os.read(stream.fd, stream.size) == data
    calm(grown, stream)
    assert stream.holds == PIPE_BYTES


def test_a_stream_that_cannot_be_changed_stays_as_it_is(pipe):
    """A closed pipe, a terminal, a user who has had enough."""
    grown, stream = Growth(), pipe()
    real, stream.fd = stream.fd, os.open("/dev/null", os.O_RDONLY)
    shout(grown, stream)
    assert stream.size == PIPE_BYTES
    assert grown.spare_bytes == growth.BUDGET_BYTES
    os.close(stream.fd)
    stream.fd = real


def test_p18_an_exit_waits_for_the_last_piece_of_a_large_read(pipe):
    """1 one read takes all that was owed; 2 its first piece is fed; 3 the exit must not be published yet."""
    owed = []

    class Owner:
        def feed(self, channel, chunk):
            owed.append(channel.owed)

        def went_on(self, channel):
            pass

    stream = pipe()
    fcntl.fcntl(stream.fd, growth.F_SETPIPE_SZ, GROWN_BYTES)
    os.write(stream.other, b"x" * (3 * PIPE_BYTES))
    channel = Channel(stream.fd, "stdout", LineBuffer(), Owner(), Reader())
    channel.size = GROWN_BYTES
    channel.owed = 3 * PIPE_BYTES
    channel.ready()
    assert owed == [2 * PIPE_BYTES, PIPE_BYTES, 0]


class Feeder:
    """An owner whose child says something more at each read."""

    def __init__(self, other: int, more: int) -> None:
        self.other = other
        self.more = more
        self.seen: list[bytes] = []
        self.ends = 0
        self.patience = sys.maxsize  # so many reads until it has the stream paused

    def feed(self, channel: Channel, chunk: bytes) -> None:
        self.seen.append(chunk)
        if self.more:
            self.more -= 1
            os.write(self.other, b"%d" % self.more)

    def went_on(self, channel: Channel) -> None:
        if len(self.seen) >= self.patience:
            channel.pause()

    def ended(self, channel: Channel) -> None:
        self.ends += 1
        os.close(channel.fd)
        channel.fd = -1


@pytest.fixture
def fed(pipe):
    """Return a channel with a grown pipe, and its owner."""
    interval = sys.getswitchinterval()

    def fed(more: int, *, waits: bool) -> tuple[Channel, Feeder]:
        sys.setswitchinterval(1e-6 if waits else 100)  # any read takes longer; none does
        stream = pipe()
        owner = Feeder(stream.other, more)
        os.write(stream.other, b"begin")
        channel = Channel(stream.fd, "stdout", LineBuffer(), owner, Reader())
        channel.size = GROWN_BYTES
        return channel, owner

    yield fed
    sys.setswitchinterval(interval)


def test_a_read_that_waited_long_is_followed_by_some_that_keep_the_gil(fed):
    """By so many, and by none that finds nothing: others wait for their turn."""
    channel, owner = fed(9, waits=True)
    channel.ready()
    assert owner.seen == [b"begin", b"8", b"7", b"6"]
    channel.ready()
    assert owner.seen[4:] == [b"5", b"4", b"3", b"2"]
    channel.ready()
    assert owner.seen[8:] == [b"1", b"0"]
    channel.ready()
    assert (owner.seen[10:], owner.ends) == ([], 0)


def test_one_that_did_not_wait_is_not(fed):
    """Beside no busy thread: every fd gets its turn before any gets another."""
    channel, owner = fed(9, waits=False)
    channel.ready()
    assert owner.seen == [b"begin"]
    channel.ready()
    assert owner.seen == [b"begin", b"8"]


def test_a_stream_that_is_paused_is_not_read_on(fed):
    """By an owner whose searcher has to see more first."""
    channel, owner = fed(9, waits=True)
    owner.patience = 2
    channel.ready()
    assert owner.seen == [b"begin", b"8"]


def test_the_end_is_seen_by_any_read(fed):
    """The writer is gone meanwhile."""
    channel, owner = fed(0, waits=True)
    mine, channel.fd = channel.fd, os.dup(channel.fd)  # it closes its own
    other, owner.other = owner.other, -1
    sink = os.open(os.devnull, os.O_RDONLY)
    os.dup2(sink, other)
    os.close(sink)
    channel.ready()
    assert (owner.seen, owner.ends) == ([b"begin"], 1)
    assert os.read(mine, 1) == b""


@pytest.mark.parametrize("why", ["no ctypes", "an audit hook"])
def test_it_reads_where_the_gil_cannot_be_kept(why, fed, monkeypatch):
    """Once in a turn, as everywhere."""
    if why == "no ctypes":
        monkeypatch.setitem(sys.modules, "ctypes", None)
    else:
        import ctypes

        def refuse(*_: object) -> None:
            raise RuntimeError("an audit hook")

        monkeypatch.setattr(ctypes, "PyDLL", refuse)
    channel, owner = fed(1, waits=True)
    channel.ready()
    assert owner.seen == [b"begin"]
    channel.ready()
    channel.ready()
    assert owner.seen == [b"begin", b"0"]


def test_nothing_is_lost_while_pipes_change(manager):
    """Several noisy processes at once, more than the budget has room for; all is given back."""
    room = 2 * (GROWN_BYTES - PIPE_BYTES)
    grown = manager._pool.reader.growth
    grown.spare_bytes = room
    steps = ("zeros:8000000", "out:\\n", "lines:1000", "out:the end\\n")
    processes = [manager.spawn("a", child(*steps)) for _ in range(4)]
    for process in processes:
        process.wait(20)
        assert process.info().bytes.stdout == 8_000_000 + 1 + sum(len(f"line {n}\n") for n in range(1000)) + 8
        assert process.tail(1).stdout == ["the end"]
    until(lambda: grown.spare_bytes == room, "all of the budget")
