"""Runs a command on a terminal of its own and plays a user.

    terminal.py '[["expected text", "keys to type"], ...]' COMMAND [ARGUMENT ...]

Each text is waited for behind the one before it. `[status N]` appears when the command has ended. Everything that came
to the terminal goes to standard output; a text that does not come within half a minute ends this with status 1.
"""

import json
import os
import pty
import select
import signal
import sys
import time

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
# The shell leads the session, as the user's does: the terminal is not taken away when the command has ended.
leader = ["sh", "-c", 'trap : INT; "$@"; echo "[status $?]"; read line', "sh", *command]
pid, terminal = pty.fork()
if pid == 0:
    # A user's shell ignores none of these, whatever this was started with (nohup, a job in the background).
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(leader[0], leader)

seen, behind = b"", 0


def wait_for(text):
    global seen, behind
    deadline = time.monotonic() + 30
    while (found := seen.find(text, behind)) < 0:
        if not select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            return False
    behind = found + len(text)
    return True


complete = True
for text, keys in steps:
    if not wait_for(text.encode()):
        complete = False
        sys.stderr.write(f"{text!r} did not come\n")
        break
    os.write(terminal, keys.encode())
sys.stdout.buffer.write(seen)
# Closing the terminal hangs up on everything that is left on it.
os.close(terminal)
os.waitpid(pid, 0)
sys.exit(0 if complete else 1)
