"""What is measured of a model to see what it has kept: likelihood of texts, distance from its base, features' drift.

Legend: T tokens, V vocabulary, D width. The reserved ids of a trained prompt, encoder.front, stand before every text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.config.family import Family
from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.objectives.generation import written
from experiments.objectives.plain_text import PlainText

PROMPT_TOKENS, WRITTEN_TOKENS = 8, 48  # the model goes on from the first tokens of a text with so many of its own


@dataclass(frozen=True)
class Written:
    """A text that a model wrote: the tokens it was given and its own."""

    prompt: list[int]
    own: list[int]


@torch.no_grad()
def text_nll(reader: Reader, texts: Sequence[list[int]]) -> list[float]:
    """Of each text of ids, the summed −log p of every token after the first; a model that diverged may give NaN."""
    reader.model.eval()
    objective = PlainText(reader.encoder)
    rows = [Encoded([*reader.encoder.front, text[0]], text[1:]) for text in texts]
    return [objective.loss_sum(reader.model, objective.collate([row], reader.device)).item() for row in rows]


def continuations(reader: Reader, texts: Sequence[list[int]]) -> list[Written]:
    """What the model writes after the beginnings of the texts, drawn token by token from its own distribution.

    Sampled and not greedy, so that the mean of KL over its tokens estimates that over all that the model would write.
    """
    prompts = [text[:PROMPT_TOKENS] for text in texts]
    torch.manual_seed(0)
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    own = written(reader, prompts, WRITTEN_TOKENS, **how).tolist()
    return [Written(prompt, ids) for prompt, ids in zip(prompts, own, strict=True)]


@torch.no_grad()
def logits_of(reader: Reader, texts: Sequence[Written]) -> Iterator[Tensor]:
    """Of each text, one at a time, the logits (T, V) that its own tokens were chosen by, in the model's dtype."""
    reader.model.eval()
    for text in texts:
        ids = torch.tensor([[*reader.encoder.front, *text.prompt, *text.own]], device=reader.device)
        logits = reader.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        yield logits[0, -len(text.own) - 1 : -1]


def kl_sum(base: Tensor, tuned: Tensor) -> float:
    """Σ_t KL(base ‖ tuned) = Σ_t Σ_v p (log p − log q) in nats; logits (T, V), worked out in fp32."""
    log_p, log_q = (F.log_softmax(logits.float(), -1) for logits in (base, tuned))
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True).item()


@torch.no_grad()
def features(reader: Reader, texts: Sequence[list[int]]) -> Tensor:
    """The last hidden states' means over each text's tokens, (texts, D) in fp32."""
    reader.model.eval()
    model: Any = reader.model
    base = model.get_encoder() if reader.family is Family.encoder_decoder else model.base_model
    means = []
    for text in texts:
        ids = torch.tensor([[*reader.encoder.front, *text]], device=reader.device)
        hidden = base(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]  # (T, D)
        means.append(hidden[-len(text) :].float().mean(0).cpu())
    return torch.stack(means)


def drift(base: Tensor, tuned: Tensor) -> list[float]:
    """1 − cos of each text's features (texts, D)."""
    return (1 - F.cosine_similarity(base, tuned)).tolist()
