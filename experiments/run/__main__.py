"""One run: a model, a method, a task, a seed; trained, evaluated, saved and measured.

    python -m experiments.run method=lora task=ha_json model=smollm2 seed=0 optim.lr=5e-4

The directory is named by a hash of the configuration, so the same command goes on where it was stopped, and prints
the result at once where it is complete.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments.config import plugins
from experiments.config.compose import CONF, complete, register
from experiments.config.identity import run_name
from experiments.config.schema import Config
from experiments.config.table import PluginError
from experiments.support.output import lasting_output


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(composed: DictConfig) -> None:
    from experiments.run.execute import age_s, run  # torch: `--help` need not wait for it

    config = cast(Config, OmegaConf.to_object(composed))
    plugins.load(config.plugins)  # a launcher may have brought the configuration into a process that has none yet
    plugins.load_installed()
    config = complete(config)
    alone = HydraConfig.get().mode is RunMode.RUN  # several jobs of a multirun may share the process
    result = run(config, start=age_s() if alone else 0.0)
    quality = "  ".join(f"{name} {value:.3f}" for name, value in result.quality.items())
    print(f"{Path(config.out) / run_name(config)}\n{result.method} seed {result.seed}: {quality}")


register()

if __name__ == "__main__":
    lasting_output()
    try:
        plugins.load_for(sys.argv[1:])
    except PluginError as error:
        raise SystemExit(f"error: {error}") from None
    # The module's name is used so that launchers which pickle the function (joblib, submitit) send names, not torch.
    importlib.import_module("experiments.run.__main__").main()
