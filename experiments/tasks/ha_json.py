"""ha_json: a sentence said to an English home -> JSON of its intent and slots; split by template."""

from __future__ import annotations

from typing import Any

from experiments.metrics import canonical, json_match
from experiments.tasks import Example, TaskData, content_sha256
from experiments.tasks.ha import Draw, Said, drawn, sources


def load(config: Any, seed: int) -> TaskData:
    parts = drawn(Draw("en", config.n_train, config.n_val, config.n_test, seed))
    train, val, test = ([example(said) for said in part] for part in parts)
    digest = content_sha256(train, val, test)
    return TaskData("ha_json", "generate", train, val, test, (), digest, sources(), "exact_match", json_match)


def example(said: Said) -> Example:
    answer = canonical({"intent": said.intent, "slots": said.slots})
    return Example(({"role": "user", "content": said.text},), answer, group=said.template)
