"""The launcher `fresh`: each job of a Hydra multirun in a process of its own, several at a time.

    python -m experiments.run -m method=lora,bitfit 'seed=range(3)' hydra.launcher.slots=2

It is the default of `-m` here (experiments/conf/config.yaml). Others are chosen by name and come with the extra
`sweep`: `hydra/launcher=joblib` (processes are used again, so a job's peak memory may be an earlier one's) and
`hydra/launcher=submitit_slurm` or `submitit_local` for clusters.

Hydra takes plugins from the namespace package hydra_plugins alone, so this file lies here, without an __init__.py
beside it; experiments/sweep/pool.py does the work.
"""

# No `from __future__ import annotations` here: Hydra runs this file before it is in sys.modules, where dataclass would
# look the annotations' names up.
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class FreshConfig:
    _target_: str = f"{__name__}.FreshLauncher"
    slots: int = 1  # jobs at a time; they share the cores, and with more than one their times compete for the memory


class FreshLauncher(Launcher):
    """Hands the jobs' overrides to the pool. A job's return value is its validation loss, for sweepers that search."""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from experiments.store.result import Complete
        from experiments.sweep.arm import Arm
        from experiments.sweep.pool import carry_out

        hydra = self.config.hydra
        if hydra.job.config_name != "config":
            raise CompactHydraException(
                f"hydra/launcher=fresh: started with --config-name={hydra.job.config_name}, but its jobs start from "
                "`config`; give what differs as overrides, or choose hydra/launcher=basic"
            )
        more = [item for item in hydra.overrides.hydra if item.startswith("hydra.searchpath=")]
        arms = [Arm((*overrides, *more)) for overrides in job_overrides]
        rows = carry_out(arms, self.slots)
        failed = [f"{arm.directory}: {row.failure}" for arm, row in zip(arms, rows) if row.failure is not None]
        summary = "\n".join([f"{len(failed)} of {len(rows)} runs failed; the same command tries them again", *failed])
        returns = []
        for overrides, arm, row in zip(job_overrides, arms, rows):
            value: Any = row.validation["loss"] if isinstance(row, Complete) else CompactHydraException(summary)
            status = JobStatus.COMPLETED if row.failure is None else JobStatus.FAILED
            made = OmegaConf.structured(arm.config)
            item = JobReturn(overrides, made, working_dir=str(arm.directory), task_name=hydra.job.name, status=status)
            item.return_value = value
            returns.append(item)
        return returns


ConfigStore.instance().store(group="hydra/launcher", name="fresh", node=FreshConfig, provider="fresh_launcher")
