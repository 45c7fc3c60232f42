"""PID 1 of a pid namespace: runs one command, reaps whatever is left to it, and ends with the command.

With it the kernel ends everything in the namespace, so that no bug of a test can reach anything else.
"""

import os
import signal
import sys

DEADLINE_SECS = 100

signal.alarm(DEADLINE_SECS)
payload = os.fork()
if payload == 0:
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  # that is what it is for
while True:
    pid, status = os.wait()
    if pid == payload:
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
