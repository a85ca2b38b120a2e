"""Files that are replaced whole or not at all, and the lock on a folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import ROOT
from experiments.support.files import clear, locked, replaced, write_json, write_text

HOLDER = """
import sys, time
from pathlib import Path
from experiments.support.files import locked
lock = locked(Path(sys.argv[1]))
print("held" if lock else "not mine", flush=True)
time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with replaced(file) as written:
        written.write_text("new")
        assert file.read_text() == "old"
        assert written.parent == tmp_path
    assert file.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ZeroDivisionError])
def test_on_an_error_the_old_file_stays(error: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def fails() -> None:
        with replaced(file) as written:
            written.write_text("half")
            raise error

    with pytest.raises(error):
        fails()
    assert file.read_text() == "old"
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"loss": float("nan")})
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_there_whole(tmp_path: Path) -> None:
    with replaced(tmp_path / "folder") as written:
        (written / "deep").mkdir(parents=True)
        (written / "deep" / "a").write_text("a")
        assert not (tmp_path / "folder").exists()
    assert [path.name for path in (tmp_path / "folder").rglob("*")] == ["deep", "a"]
    assert names(tmp_path) == ["folder"]


def test_or_a_folder_is_not_there(tmp_path: Path) -> None:
    def fails() -> None:
        with replaced(tmp_path / "folder") as written:
            (written / "deep").mkdir(parents=True)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fails()
    assert names(tmp_path) == []


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with replaced(file) as one, replaced(file) as two:
        one.write_text("one")
        two.write_text("two")
    assert file.read_text() == "one"  # which ended last


def test_what_is_written_has_a_usual_mode(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == usual.stat().st_mode


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    for name in ("a.txt.0123abcd.part", "a.txt.2.0123abcd.part", "a.txt"):
        (tmp_path / name).touch()
    clear(tmp_path, "a.txt")
    assert names(tmp_path) == ["a.txt", "a.txt.2.0123abcd.part"]
    clear(tmp_path)
    assert names(tmp_path) == ["a.txt"]


# ---------------------------------------------------------------- the lock


def holder(file: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_one_process_s_until_it_dies_however_it_dies(tmp_path: Path) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = holder(tmp_path / "lock")
        assert locked(tmp_path / "lock") is None
        process.send_signal(number)
        process.communicate()
        lock = locked(tmp_path / "lock")
        assert lock is not None
        lock.close()


def test_a_lock_is_let_go_after_its_block_and_by_close(tmp_path: Path) -> None:
    def fails() -> None:
        lock = locked(tmp_path / "lock")
        assert lock is not None
        with lock:
            assert locked(tmp_path / "lock") is None
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as kept:  # its frames, and the lock in them, live on
            fails()
        assert kept.traceback
        again = locked(tmp_path / "lock")
        assert again is not None
        again.close()


def test_a_child_does_not_hold_its_parent_s_lock(tmp_path: Path) -> None:
    lock = locked(tmp_path / "lock")
    assert lock is not None
    with subprocess.Popen(["sleep", "60"]) as child:
        lock.close()
        again = locked(tmp_path / "lock")
        assert again is not None
        again.close()
        child.kill()


def test_a_lock_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("of an earlier version")
    lock = locked(tmp_path / "lock")
    assert lock is not None
    lock.close()
    assert (tmp_path / "lock").read_text() == "of an earlier version"
