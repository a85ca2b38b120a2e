"""What stands in for a run in the tests of the pool: the same files and the same lock, without torch and in no time.

    python -m tests.support.double DIRECTORY STEPS STEP_S HOW

It logs a row a step, keeps a checkpoint every third step and goes on from it, and notes in the file `starts` that it
was there. HOW it goes: `well`, `raises` (recorded by itself), `exits`, `dies` (SIGKILL) or `shell` (beside it sleeps a
process of its own that is deaf to SIGTERM).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.made_up import made_up
from experiments.support.files import locked, write_json, write_text

KEPT_EVERY = 3


def main(directory: Path, steps: int, step_s: float, how: str) -> None:
    lock = locked(directory / "lock")
    if lock is None:
        raise SystemExit("another process is at work in this run")
    with (directory / "starts").open("a") as starts:
        starts.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")
    if how == "shell":
        subprocess.Popen(["sh", "-c", f"trap '' TERM; echo $$ > {directory / 'child'}; sleep 60"])
    file, kept, metrics = directory / "result.json", directory / "kept.json", directory / "metrics.jsonl"
    file.unlink(missing_ok=True)
    rows = json.loads(kept.read_text()) if kept.is_file() else []
    write_text(metrics, "".join(json.dumps(row) + "\n" for row in rows))
    with metrics.open("a") as log:
        while len(rows) < steps:
            time.sleep(step_s)
            rows.append({"step": len(rows) + 1, "loss": 1.0})
            log.write(json.dumps(rows[-1]) + "\n")
            log.flush()
            if len(rows) % KEPT_EVERY == 0:
                write_json(kept, rows)
            if how == "dies" and len(rows) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "exits" and len(rows) == 2:
                raise SystemExit("the double gave up")
            if how == "raises" and len(rows) == 2:
                write_json(file, made_up(directory.name, status="failed", error="made up", failure_kind="nan"))
                raise SystemExit(1)
    write_json(file, made_up(directory.name, steps=steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
