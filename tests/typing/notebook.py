"""A notebook: a server in one cell, a look at it in the next."""

from __future__ import annotations

import procpool

server: procpool.Process = procpool.spawn("python3", ["-um", "http.server", "0"], merge_stderr=True)
match: procpool.Match = server.expect(r"port (\d+)", timeout=10)
port = int(match[1] or 0)

newest: list[str] = server.tail(5).stdout
info: procpool.ProcessInfo = server.info()
print(port, newest, info.uptime_secs, info.lines.stdout, server.usage().rss_bytes // 2**20)

for line in server.follow(timeout=1.0):
    print(line.time, line.stream, line.text, line.dropped)

survivors: tuple[int, ...] = server.kill().survivors
