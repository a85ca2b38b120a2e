"""A configuration as plain values: what OmegaConf would make of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from experiments.config.compose import composed
from experiments.config.schema import plain


@pytest.mark.parametrize("method", ["lora", "mam", "full", "none"])
@pytest.mark.parametrize("task", ["ha_json", "multilingual", "jsonl task.train=a.jsonl", "general"])
def test_it_is_what_omegaconf_makes_of_it(method: str, task: str) -> None:
    config = composed(["model=tiny", f"method={method}", *f"task={task}".split()])
    config = replace(config, optim=replace(config.optim, lr=1))  # a float, whatever was given
    expected = OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)
    assert repr(plain(config)) == repr(expected)
