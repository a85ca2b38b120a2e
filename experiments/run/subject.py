"""A run that is ready to train: what its stages hand on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from experiments.config.schema import Config
from experiments.data.encode import Encoded
from experiments.data.findings import Findings
from experiments.data.reader import Reader
from experiments.data.replay import Replay
from experiments.evaluation import forgetting
from experiments.evaluation.tfidf import TfIdf
from experiments.objectives.base import Objective
from experiments.support.phase_clock import PhaseClock
from experiments.tasks.base import TaskData


@dataclass(frozen=True)
class Sizes:
    """The model as it was loaded: its parameters, their bytes, and those of the process that holds it."""

    n_base: int
    base_bytes: int
    resident_bytes: int


@dataclass(frozen=True)
class Subject:
    """Its data, and its model with the method's parameters."""

    config: Config
    directory: Path
    clock: PhaseClock
    data: TaskData
    reader: Reader
    objective: Objective
    rows: dict[str, list[Encoded]]  # train, val and test, and what is reported apart
    replay: Replay
    predictor: TfIdf | None  # what answers in the model's place
    findings: Findings | None  # None: nobody looked
    base: forgetting.Base | None
    source: str  # where the model's weights come from
    sizes: Sizes
    n_left_out: int  # records that data.check=warn has gone on without
    commit: str | None  # where on the hub the model was read

    @property
    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.reader.model.parameters() if p.requires_grad]
