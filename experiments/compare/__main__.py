"""Methods compared as a careful reader would want it, `make compare`:

    python -m experiments.compare model=smollm2 tasks=[ha_json,sql] methods=[lora,prefix,full] seeds=5 margin=0.02

Of every task: a plan is written; each method gets the same search on the validation set, by runs that never see the
test set, until its best rate has something tried on both sides; then each runs with `seeds` new seeds, and these are
tested. An override with = in it is quoted: 'shared=["optim.batch_size=4"]'. Started again, it goes on where it was,
also in another checkout that has its small result files. Under results: plan.json, plan.md, a small file of every
run, ledger.jsonl with every decision and departure, comparison.json, table.md and plot.png. Exits with 1 if a run
failed; the others are compared and what is missing is listed. docs/comparing.md explains the protocol.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments import ROOT
from experiments.compare.config import CompareConfig, register
from experiments.compare.study import Study
from experiments.store.tables import terminal
from experiments.support.output import lasting_output


def composed(overrides: Sequence[str]) -> CompareConfig:
    """The comparison's configuration, under Hydra's rules but without its application and that one's tracebacks."""
    register()
    with initialize_config_dir(str(ROOT / "experiments" / "conf" / "compare"), version_base="1.3"):
        config = OmegaConf.to_object(compose("compare", overrides=list(overrides)))
    assert isinstance(config, CompareConfig)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=inspect.getsource(CompareConfig),
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides of the keys below")
    given = parser.parse_args(argv)
    try:
        return Study(composed(given.overrides), terminal()).run()
    except (HydraException, ValueError) as error:  # a key, a value, a result file: the message names it
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    lasting_output()
    raise SystemExit(main())
