"""Run a command that lives no longer than the process which started it.

    python -I -S die_with_parent.py PARENT COMMAND ...     PARENT: the process id of who starts it

A sweep that is killed by SIGKILL cannot stop its runs any more, and runs without a sweep would go on beside those of
the next one. Linux kills them for it: PR_SET_PDEATHSIG, which stays in force over exec. It is set here, in a program
of its own, because the function that subprocess offers to call between fork and exec may deadlock where the parent has
threads. Elsewhere than on Linux the command is run as it is.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return  # it died before the line above, so no signal will come
        # Where memory runs out, the kernel takes the run, which can be done again, not the sweep.
        Path("/proc/self/oom_score_adj").write_text("500")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
