"""Forgetting: what training on a task does to what the model could do before.

Three probes, each before and after. Perplexity on held-out general text: exp of the mean negative log-likelihood a token.
KL(base || tuned) a token, Σ_v p(v) (log p(v) − log q(v)) over the vocabulary, averaged over the tokens of text that the
base itself wrote by sampling. The score on other tasks. An encoder writes no text; of it the drift of its features is
taken: 1 − cos between the means over a text's tokens, base against tuned.

The figures of the base are a function of the base and the probes, and are kept in the cache under a hash of both. Legend: T tokens, V vocabulary, D width.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import deltatune as dt
from experiments.batches import Encoder, Row, collate
from experiments.config import Config
from experiments.cost import write
from experiments.fetch import cached
from experiments.loss import loss_sum
from experiments.tasks import TaskError

FORMAT = 1  # of the cached figures; raise it when what is measured changes
TEXT_TOKENS = 128  # of a text; what is longer is cut
PROMPT_TOKENS, WRITTEN_TOKENS = 8, 48  # the base goes on from the first tokens of a text with so many of its own


@dataclass
class Forgetting:
    """The probes of one run. Make it while the model is the base, before anything is put in."""

    config: Config
    model: nn.Module
    encoder: Encoder  # of the base, without a delta's front
    device: torch.device

    def __post_init__(self) -> None:
        n_text, n_kl = self.config.forgetting.n_text, self.config.forgetting.n_kl
        texts = general_texts(self.config.forgetting.text, max(n_text, n_kl))
        self.ids = [ids for text in texts if len(ids := self.encoder.tokenizer(text)["input_ids"][:TEXT_TOKENS]) > 1]
        ...
