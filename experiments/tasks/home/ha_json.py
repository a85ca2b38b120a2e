"""ha_json: a sentence said to an English home -> JSON of its intent and slots; split by template."""

from __future__ import annotations

from functools import partial
from typing import Any

from experiments.tasks.base import Example, TaskData, content_sha256
from experiments.tasks.home.draw import Draw, drawn
from experiments.tasks.home.sentences import Said, sources
from experiments.tasks.metrics import canonical, json_match, no_json_object

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"type": "string"}, "slots": {"type": "object"}},
    "required": ["intent", "slots"],
    "additionalProperties": False,
}


def load(config: Any, seed: int) -> TaskData:
    parts = drawn(Draw("en", config.n_train, config.n_val, config.n_test, seed))
    train, val, test = ([example(said) for said in part] for part in parts)
    digest, scorer = content_sha256(train, val, test), partial(json_match, schema=SCHEMA)
    metric = "exact_match", scorer, no_json_object
    return TaskData("ha_json", "generate", train, val, test, (), digest, sources(), *metric)


def example(said: Said) -> Example:
    answer = canonical({"intent": said.intent, "slots": said.slots})
    return Example(({"role": "user", "content": said.text},), answer, group=said.template)
