"""The TREC questions as a task of one's own: six kinds of answer, about 5,400 training and 490 test questions.

    python -m experiments.compare plugins=[benchmarks.trec] model=minilm 'tasks=[trec]'

The files are not part of the repository: records {"text", "label"} made of TREC's train and test part (Li & Roth 2002,
"Learning Question Classifiers"), by default datasets/trec.train.jsonl and datasets/trec.test.jsonl.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from experiments.config.tasks import JsonlConfig
from experiments.extend import TaskData, task
from experiments.tasks import jsonl


@dataclass
class TrecConfig(JsonlConfig):
    train: str = "datasets/trec.train.jsonl"
    test: str | None = "datasets/trec.test.jsonl"


@task("trec", TrecConfig)
def load(config: TrecConfig, seed: int) -> TaskData:
    """trec: a question -> the kind of its answer (abbreviation, entity, description, human, location, number)."""
    return replace(jsonl.load(config, seed), name="trec")
