"""Trackers: TensorBoard's files for real, the other packages replaced by ones that record, raise or hang."""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.made_up import made_up
from experiments.config.identity import run_name
from experiments.config.schema import Config
from experiments.extend import Tracker, tracker
from experiments.training import trackers
from experiments.training.accelerated import Accelerated
from experiments.training.tracker_table import TRACKERS
from experiments.training.trackers import Trackers
from tests.support.runs import config

OTHERS = ("wandb", "mlflow", "trackio")
VARIABLES = (
    *("WANDB_MODE", "WANDB_PROJECT", "WANDB_ERROR_REPORTING", "TRACKIO_PROJECT", "COMET_START_ONLINE"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY", "COMET_DISABLE_AUTO_LOGGING"),
    *("SWANLAB_MODE", "DVC_NO_ANALYTICS", "COMET_PROJECT_NAME", "SWANLAB_PROJ_NAME"),
)


@pytest.fixture
def made(tmp_path: Path) -> Config:
    return config("model=tiny", "task=ha_json", "method=lora", f"out={tmp_path / 'runs'}")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables that the trackers read or set; put back afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def modules(name: str) -> tuple[str, ...]:
    """What a tracker imports."""
    tracker = TRACKERS[name]
    assert isinstance(tracker, type)
    assert issubclass(tracker, Accelerated)
    return tracker.modules


class Recorder(ModuleType):
    """A package that has every name; each is a function that writes down its call, and returns the package again."""

    __version__ = "99"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        # What accelerate asks of MLflow, DVCLive and SwanLab is no call.
        self.utils = SimpleNamespace(
            validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=100)
        )
        self.search_experiments = lambda filter_string: []
        self.Metric = SimpleNamespace(could_log=lambda value: True)
        self.config: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "summary":
            return SimpleNamespace(update=lambda numbers: self.calls.append(("summary", (numbers,), {})))

        def call(*args: Any, **kwargs: Any) -> Recorder:
            self.calls.append((name, args, kwargs))
            return self

        return call

    def __setitem__(self, name: str, value: Any) -> None:
        self.calls.append(("set", (name, value), {}))

    def called(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture(params=OTHERS)
def recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return recording(request.param, monkeypatch)


def recording(name: str, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The package replaced by one that records."""
    fake = Recorder(name)
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setitem(sys.modules, f"{name}.plots", fake)
    return fake


def a_run(tracked: Trackers, result: dict[str, Any]) -> None:
    for step in (1, 2, 3):
        tracked.log(step, {"step": step, "loss": 3.0 / step, "lr": 0.01, "tokens": 8 * step, "said": "text"})
    tracked.finish(result)


# ---------------------------------------------------------------- before the run


def test_an_unknown_tracker_is_refused(made: Config) -> None:
    with pytest.raises(ValueError, match="no tracker 'tensorbored'; there are: tensorboard, wandb, mlflow, trackio"):
        Trackers(["tensorbored"], made)


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_package_that_is_missing_is_named(name: str, made: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in modules(name):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"cannot import {name} .*pip install {name}"):
        Trackers([name], made)
    assert not Path(made.out).exists()


def test_no_tracker_is_no_work(made: Config) -> None:
    threads = threading.active_count()
    a_run(Trackers([], made), made_up())
    assert threading.active_count() == threads


# ---------------------------------------------------------------- what they get


def test_each_gets_its_steps_and_the_result(recorder: Recorder, made: Config) -> None:
    a_run(Trackers([recorder.__name__], made), made_up())
    calls = {name for name, _, _ in recorder.calls}
    if recorder.__name__ == "wandb":
        ((_, init),) = recorder.called("init")
        assert init["mode"] == "offline"
        assert init["dir"] == str(Path(made.out) / run_name(made))
        assert init["config"]["method"]["name"] == "lora"
        steps = recorder.called("log")
        assert recorder.called("summary")[0][0][0]["quality/exact_match"] == 0.25
        assert recorder.called("finish") == [((), {"exit_code": 0})]
    elif recorder.__name__ == "mlflow":
        ((uri,), _) = recorder.called("set_tracking_uri")[0]
        assert uri == f"sqlite:///{Path(made.out).resolve()}/mlflow.db"
        params = {name: value for (some,), _ in recorder.called("log_params") for name, value in some.items()}
        assert params["optim.lr"] == str(made.optim.lr)
        *steps, ((summary,), _) = recorder.called("log_metrics")
        assert summary["forgetting/tasks/made-up-other/after"] == 0.375
        assert recorder.called("end_run") == [(("FINISHED",), {})]
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    else:
        assert recorder.called("init")[0][1]["name"] == run_name(made)
        *steps, ((summary,), _) = recorder.called("log")
        assert summary["seconds/total"] == 52.0
        assert "finish" in calls
    assert steps == [(({"loss": 3.0 / i, "lr": 0.01, "tokens": 8.0 * i},), {"step": i}) for i in (1, 2, 3)]


def test_the_users_own_settings_stand(monkeypatch: pytest.MonkeyPatch, made: Config) -> None:
    own = {"WANDB_MODE": "online", "WANDB_PROJECT": "mine", "MLFLOW_TRACKING_URI": "http://made.up"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    wandb, mlflow = recording("wandb", monkeypatch), recording("mlflow", monkeypatch)
    a_run(Trackers(["wandb", "mlflow"], made), made_up())
    assert (wandb.called("init")[0][1]["mode"], wandb.called("init")[0][1]["project"]) == ("online", "mine")
    assert not mlflow.called("set_tracking_uri")
    assert len(mlflow.called("log_metrics")) == 4


def test_a_failed_run_is_tracked_as_one(recorder: Recorder, made: Config) -> None:
    result = {"status": "failed", "error": "step 4: nan", "failure_kind": "nan"}
    a_run(Trackers([recorder.__name__], made), result)
    if recorder.__name__ == "wandb":
        assert recorder.called("summary") == [(({"error": "step 4: nan"},), {})]
        assert recorder.called("finish") == [((), {"exit_code": 1})]
    if recorder.__name__ == "mlflow":
        assert recorder.called("set_tag") == [(("error", "step 4: nan"), {})]
        assert recorder.called("end_run") == [(("FAILED",), {})]
    assert "finish" in {name for name, _, _ in recorder.calls} | {"finish" for _ in recorder.called("end_run")}


OFFLINE = {
    "comet_ml": {"COMET_START_ONLINE": "false", "COMET_DISABLE_AUTO_LOGGING": "1"},
    "aim": {},
    "dvclive": {"DVC_NO_ANALYTICS": "true"},
    "swanlab": {"SWANLAB_MODE": "offline"},
}


@pytest.mark.parametrize("name", OFFLINE)
def test_the_other_trackers_stay_on_this_machine_and_mark_what_failed(
    name: str, made: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, directory = recording(name, monkeypatch), Path(made.out) / run_name(made)
    a_run(Trackers([name], made), {"status": "failed", "error": "step 4: nan", "failure_kind": "nan"})
    assert capsys.readouterr().err == ""
    assert {variable: os.environ[variable] for variable in OFFLINE[name]} == OFFLINE[name]
    if name == "comet_ml":
        ((_, settings),) = fake.called("ExperimentConfig")
        assert (settings["offline_directory"], settings["name"]) == (str(directory / "comet"), run_name(made))
        assert not any(settings[key] for key in ("log_code", "log_git_patch", "log_env_details", "auto_output_logging"))
        assert fake.called("start")[0][1]["project_name"] == "deltatune"
        assert fake.called("log_parameters")[0][0][0]["optim.lr"] == made.optim.lr
        assert [kwargs["step"] for (metric, _), kwargs in fake.called("log_metric") if metric == "loss"] == [1, 2, 3]
        assert (("error", "step 4: nan"), {}) in fake.called("log_other")
    elif name == "aim":
        ((_, settings),) = fake.called("Run")
        assert settings["repo"] == str(Path(made.out).resolve())
        assert (settings["system_tracking_interval"], settings["capture_terminal_logs"]) == (None, False)
        assert [kwargs["step"] for _, kwargs in fake.called("track") if kwargs["name"] == "loss"] == [1, 2, 3]
        assert (("error", "step 4: nan"), {}) in fake.called("set")
    elif name == "dvclive":
        assert fake.called("Live") == [
            ((), {"dir": str(directory / "dvclive"), "save_dvc_exp": False, "dvcyaml": None, "resume": False})
        ]
        assert (("error", "step 4: nan"), {}) in fake.called("log_metric")
    else:
        ((_, settings),) = fake.called("init")
        assert (settings["mode"], settings["log_dir"]) == ("offline", str(directory / "swanlog"))
        assert fake.called("finish") == [(("crashed", "step 4: nan"), {})]


def test_one_of_ones_own_is_added_by_a_line(made: Config) -> None:
    heard: list[Any] = []

    @tracker("made-up")
    class MadeUp(Tracker):
        def start(self, first: int) -> None:
            heard.append((self.about.name, first))

        def log(self, step: int, metrics: dict[str, float]) -> None:
            heard.append((step, metrics["loss"]))

        def finish(self, summary: dict[str, float], error: str | None) -> None:
            heard.append((summary["quality/exact_match"], error))

    try:
        a_run(Trackers(["made-up"], made), made_up())
    finally:
        del TRACKERS["made-up"], TRACKERS.origins["made-up"]
    assert heard == [(run_name(made), 1), (1, 3.0), (2, 1.5), (3, 1.0), (0.25, None)]


def events(folder: Path) -> list[Any]:
    """The events of TensorBoard's files: length, its checksum, the message, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return found


def test_tensorboard_files_hold_every_step(made: Config) -> None:
    a_run(Trackers(["tensorboard"], made), made_up())
    found = events(Path(made.out) / run_name(made) / "tensorboard")
    scalars = {
        (value.tag, event.step): value.simple_value
        for event in found
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    }
    assert [scalars["step/loss", step] for step in (1, 2, 3)] == [3.0, 1.5, 1.0]
    assert scalars["quality/exact_match", 3] == 0.25
    assert ("quality_by_part/north/exact_match", 3) in scalars
    texts = [value.tensor.string_val[0] for event in found for value in event.summary.value if "config" in value.tag]
    assert any(b'"lora"' in text for text in texts)
    again = Trackers(["tensorboard"], made)
    again.log(2, {"loss": 1.25})  # the run went on after its first step
    again.finish(made_up())
    hidden = [
        event.step for event in events(Path(made.out) / run_name(made) / "tensorboard") if event.session_log.status
    ]
    assert hidden == [1, 2]  # what came from these steps on: what stands in earlier files is not shown


# ---------------------------------------------------------------- nothing of it reaches the run


class Broken(ModuleType):
    """A package that raises whatever it is asked."""

    __version__ = "99"
    error: type[BaseException] = RuntimeError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> None:
            raise self.error(f"made-up failure of {name}")

        return call


@pytest.mark.parametrize("name", list(TRACKERS))
@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_one_that_raises_costs_a_warning(
    name: str,
    error: type[BaseException],
    made: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in modules(name):
        broken = Broken(module)
        broken.error = error
        monkeypatch.setitem(sys.modules, module, broken)
        if module == "torch.utils.tensorboard":  # where `from torch.utils import tensorboard` looks first
            monkeypatch.setattr(torch.utils, "tensorboard", broken, raising=False)
    a_run(Trackers([name], made), made_up())
    assert capsys.readouterr().err.count(f"warning: tracker {name}: {error.__name__}: made-up failure of") == 1


def test_one_that_raises_at_every_step_is_said_once_and_asked_on(
    made: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Recorder("trackio")
    asked: list[int | None] = []

    def log(metrics: dict[str, float], step: int | None = None) -> None:
        asked.append(step)
        raise OSError("made-up failure")

    monkeypatch.setattr(fake, "log", log, raising=False)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    a_run(Trackers(["trackio"], made), made_up())
    assert capsys.readouterr().err == "warning: tracker trackio: OSError: made-up failure; the run goes on\n"
    assert asked == [1, 2, 3, None]


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_one_that_hangs_is_left(
    where: str, made: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, released, well = Recorder("trackio"), threading.Event(), Recorder("wandb")

    def hang(*args: Any, **kwargs: Any) -> Recorder:
        released.wait(60)
        return fake

    monkeypatch.setattr(fake, where, hang, raising=False)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    monkeypatch.setitem(sys.modules, "wandb", well)
    monkeypatch.setattr(trackers, "FINISH_S", 0.5)
    began = time.monotonic()
    tracked = Trackers(["trackio", "wandb"], made)
    a_run(tracked, made_up())
    assert time.monotonic() - began < 10
    assert "warning: tracker trackio: did not finish within 0.5 s" in capsys.readouterr().err
    tracked.finish(made_up())  # and it is not waited for again
    tracked.log(4, {"loss": 1.0})
    assert well.called("finish")
    released.set()
    for worker in tracked.workers:
        worker.thread.join(10)
        assert not worker.thread.is_alive()


def test_one_that_falls_behind_is_given_up(
    made: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, released = Recorder("trackio"), threading.Event()

    def hang(*args: Any, **kwargs: Any) -> Recorder:
        released.wait(60)
        return fake

    monkeypatch.setattr(fake, "init", hang, raising=False)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    monkeypatch.setattr(trackers, "WAITING", 3)
    tracked = Trackers(["trackio"], made)
    for step in range(50):
        tracked.log(step, {"loss": 1.0})
    began = time.monotonic()
    tracked.finish(made_up())
    assert time.monotonic() - began < 5
    assert capsys.readouterr().err == "warning: tracker trackio: is 3 calls behind; the run goes on\n"
    released.set()
