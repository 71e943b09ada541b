"""Becomes another program, one that ends when the process that asked for it ends, however that happens.

    python -I -S leash.py PARENT_PID PROGRAM [ARGUMENT…]

A demo or a test run that is killed outright can't tidy up after itself; the kernel can (prctl(2), PR_SET_PDEATHSIG).
The setting survives execve(2), so this is a start and nothing else. It runs by its path, outside of any environment,
and imports nothing of ours. Where there is no prctl (macOS), it only starts the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before the leash was on
            raise SystemExit(143)
    # SIGINT is ignored when a shell started us in the background; what is started here must not inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(program[0], program)  # noqa: S606  (no shell is the point)


if __name__ == "__main__":
    main()
