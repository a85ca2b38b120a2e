"""Every tracker by name, each carried out by accelerate's.

What stands here keeps the data on this machine, puts the files beside the run's own, turns off what would sample the
run, and marks a failed one; accelerate does none of this.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from experiments.config.table import Table
from experiments.training.accelerated import Accelerated
from experiments.training.tracker import About, Tracker, leaves

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker


class TensorBoard(Accelerated):
    """Event files in the run's directory: tensorboard --logdir runs."""

    modules = ("torch.utils.tensorboard", "tensorboardX")

    def opened(self, first: int) -> GeneralTracker:
        from accelerate.tracking import TensorBoardTracker

        # What a process that died logged from this step on is hidden. The file's own name counts seconds alone.
        how: dict[str, Any] = {"purge_step": first, "filename_suffix": f".{os.getpid()}.{first}"}
        return TensorBoardTracker("tensorboard", self.about.directory, **how)

    def start(self, first: int) -> None:
        super().start(first)
        self.last = first
        # It is text: accelerate's store_init_configuration would add a folder named by the clock at each start.
        self.peer.log({"config": f"```json\n{json.dumps(self.about.config, indent=2)}\n```"})

    def log(self, step: int, metrics: dict[str, float]) -> None:
        super().log(step, {f"step/{name}": number for name, number in metrics.items()})
        self.last = step

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        self.peer.log(summary, step=self.last)
        super().finish({}, error)


class Wandb(Accelerated):
    """An offline run in the run's directory, which `wandb sync` uploads; WANDB_MODE=online to do so at once."""

    modules = ("wandb",)
    environment = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}

    def opened(self, first: int) -> GeneralTracker:
        from accelerate.tracking import WandBTracker

        return WandBTracker(
            self.project("WANDB_PROJECT"),
            name=self.about.name,
            dir=str(self.about.directory),
            config=self.about.config,
            mode=os.environ["WANDB_MODE"],
            # The run's output is its own, and it is being measured: nothing may sample it.
            settings=self.package.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        # accelerate's would log the summary as one more step, and end every run as a good one.
        self.peer.tracker.summary.update(summary if error is None else {**summary, "error": error})
        self.peer.tracker.finish(exit_code=0 if error is None else 1)


class MLflow(Accelerated):
    """A run in the database mlflow.db in `out`, or at MLFLOW_TRACKING_URI."""

    modules = ("mlflow",)
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true"}

    def opened(self, first: int) -> GeneralTracker:
        from accelerate.tracking import MLflowTracker

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self.package.set_tracking_uri(f"sqlite:///{self.about.out.resolve() / 'mlflow.db'}")
        return MLflowTracker(self.project("MLFLOW_EXPERIMENT_NAME"), run_name=self.about.name)

    def start(self, first: int) -> None:
        super().start(first)
        # accelerate leaves out what is long.
        parameters = {self.allowed(name): str(value)[:500] for name, value in leaves(self.about.config)}
        self.peer.store_init_configuration(parameters)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        super().log(step, {self.allowed(name): number for name, number in metrics.items()})

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        self.peer.log({self.allowed(name): number for name, number in summary.items()})
        if error is not None:
            self.package.set_tag("error", error[:500])
        self.package.end_run("FINISHED" if error is None else "FAILED")  # accelerate's knows no failed run

    @staticmethod
    def allowed(name: str) -> str:
        """The name with the signs that MLflow refuses replaced."""
        return re.sub(r"[^\w\-. :/]", "_", name)


class Trackio(Accelerated):
    """A run in trackio's own folder: trackio show --project deltatune."""

    modules = ("trackio",)

    def opened(self, first: int) -> GeneralTracker:
        from accelerate.tracking import TrackioTracker

        return TrackioTracker(
            self.project("TRACKIO_PROJECT"),
            name=self.about.name,
            config=self.about.config,
            resume="allow",  # a run that goes on is the same run
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )


class Comet(Accelerated):
    """An archive in the run's directory, which `comet upload` sends; COMET_START_ONLINE=true to do so at once."""

    modules = ("comet_ml",)
    environment = {"COMET_START_ONLINE": "false", "COMET_DISABLE_AUTO_LOGGING": "1"}

    def opened(self, first: int) -> GeneralTracker:
        from accelerate.tracking import CometMLTracker

        folder = self.about.directory / "comet"
        folder.mkdir(parents=True, exist_ok=True)
        # Nothing of the run is sampled, but what it logs.
        unasked = ("log_code", "log_graph", "log_git_metadata", "log_git_patch", "log_env_details")
        config = self.package.ExperimentConfig(
            name=self.about.name,
            offline_directory=str(folder),
            auto_output_logging=False,
            display_summary_level=0,
            **dict.fromkeys(unasked, False),
        )
        return CometMLTracker(self.project("COMET_PROJECT_NAME"), experiment_config=config)

    def start(self, first: int) -> None:
        super().start(first)
        self.peer.store_init_configuration(dict(leaves(self.about.config)))


class Aim(Accelerated):
    """A run in the repository .aim in `out`: aim up."""

    modules = ("aim",)

    def opened(self, first: int) -> GeneralTracker:
        from accelerate.tracking import AimTracker

        quiet: dict[str, Any] = {"system_tracking_interval": None, "capture_terminal_logs": False}
        return AimTracker(self.about.name, str(self.about.out.resolve()), experiment="deltatune", **quiet)

    def start(self, first: int) -> None:
        super().start(first)
        self.peer.store_init_configuration(self.about.config)

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        if error is not None:
            self.peer.tracker["error"] = error  # a text is no metric to Aim
        super().finish(summary, None)


class DVCLive(Accelerated):
    """Files in the run's directory, in the folder dvclive; no experiment of DVC's is made of them."""

    modules = ("dvclive",)
    environment = {"DVC_NO_ANALYTICS": "true"}

    def opened(self, first: int) -> GeneralTracker:
        from accelerate.tracking import DVCLiveTracker

        # It would commit to the repository that it is called in, and write a dvc.yaml there.
        how: dict[str, Any] = {"save_dvc_exp": False, "dvcyaml": None, "resume": first > 1}
        return DVCLiveTracker(dir=str(self.about.directory / "dvclive"), **how)

    def start(self, first: int) -> None:
        super().start(first)
        self.peer.store_init_configuration(self.about.config)


class SwanLab(Accelerated):
    """An offline run in the run's directory, which `swanlab sync` uploads; SWANLAB_MODE=online to do so at once."""

    modules = ("swanlab",)
    environment = {"SWANLAB_MODE": "offline"}

    def opened(self, first: int) -> GeneralTracker:
        from accelerate.tracking import SwanLabTracker

        return SwanLabTracker(
            self.project("SWANLAB_PROJ_NAME"),
            name=self.about.name,
            log_dir=str(self.about.directory / "swanlog"),
            config=self.about.config,
            mode=os.environ["SWANLAB_MODE"],
        )

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        self.peer.log(summary)
        self.peer.tracker.finish("success" if error is None else "crashed", error)  # accelerate's knows no failed run


# A tracker is made by a call with what it may know of its run. ClearML, which accelerate has too, is not here: its
# task was not closed within a minute on another thread than the main one (clearml 2.1.12).
TRACKERS: Table[Callable[[About], Tracker]] = Table(
    "tracker",
    {
        "tensorboard": TensorBoard,
        "wandb": Wandb,
        "mlflow": MLflow,
        "trackio": Trackio,
        "comet_ml": Comet,
        "aim": Aim,
        "dvclive": DVCLive,
        "swanlab": SwanLab,
    },
)


Maker = TypeVar("Maker", bound=Callable[[About], Tracker])


def tracker(name: str) -> Callable[[Maker], Maker]:
    """Add a tracker to the table under this name, as a decorator of its class."""

    def add(maker: Maker) -> Maker:
        TRACKERS.add(name, maker)
        return maker

    return add
