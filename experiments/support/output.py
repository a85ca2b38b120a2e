"""Output that never ends a command: on a terminal that lacks a letter, and into a pipe that nobody reads any more."""

from __future__ import annotations

import io
import os
import sys


class Lasting(io.TextIOWrapper):
    """A stream that writes what its encoding lacks as \\u escapes, and nothing more once its reader has gone."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self.drop()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self.drop()

    def drop(self) -> None:
        """Let what is still to be written go where nothing is kept: also what waits in the buffers."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def lasting_output() -> None:
    """Make the streams of this process so; one that somebody has replaced, as a test does, is left alone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.reconfigure(errors="backslashreplace")  # whoever has it already, as a logger's handler, keeps it
            how = {"encoding": stream.encoding, "line_buffering": stream.line_buffering}
            setattr(sys, name, Lasting(stream.buffer, errors="backslashreplace", **how))
