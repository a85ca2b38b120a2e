"""What is measured of a model to see what it has kept: likelihood of texts, distance from its base, features' drift.

Legend: T tokens, V vocabulary, D width. An encoder's `front`, the reserved ids of a trained prompt, stands before every
text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.data.encode import Encoder, Row, collate
from experiments.evaluation.writing import write
from experiments.training.loss import loss_sum

PROMPT_TOKENS, WRITTEN_TOKENS = 8, 48  # the model goes on from the first tokens of a text with so many of its own


@dataclass(frozen=True)
class Written:
    """A text that a model wrote: the tokens it was given and its own."""

    prompt: list[int]
    own: list[int]


@torch.no_grad()
def text_nll(model: nn.Module, encoder: Encoder, texts: Sequence[list[int]], device: torch.device) -> list[float]:
    """Of each text of ids, the summed −log p of every token after the first; a model that diverged may give NaN."""
    model.eval()
    rows = [Row([*encoder.front, text[0]], text[1:]) for text in texts]
    return [loss_sum(model, collate([row], encoder.pad, device)).item() for row in rows]


def written(model: nn.Module, encoder: Encoder, texts: Sequence[list[int]], device: torch.device) -> list[Written]:
    """What the model writes after the beginnings of the texts, drawn token by token from its own distribution.

    Sampled and not greedy, so that the mean of KL over its tokens estimates that over all that the model would write.
    """
    prompts = [text[:PROMPT_TOKENS] for text in texts]
    torch.manual_seed(0)
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    own = write(model, encoder, prompts, device, WRITTEN_TOKENS, **how).tolist()
    return [Written(prompt, ids) for prompt, ids in zip(prompts, own, strict=True)]


@torch.no_grad()
def logits_of(model: nn.Module, encoder: Encoder, texts: Sequence[Written], device: torch.device) -> Iterator[Tensor]:
    """Of each text, one at a time, the logits (T, V) that its own tokens were chosen by, in the model's dtype."""
    model.eval()
    for text in texts:
        ids = torch.tensor([[*encoder.front, *text.prompt, *text.own]], device=device)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        yield logits[0, -len(text.own) - 1 : -1]


def kl_sum(base: Tensor, tuned: Tensor) -> float:
    """Σ_t KL(base ‖ tuned) = Σ_t Σ_v p (log p − log q) in nats; logits (T, V), worked out in fp32."""
    log_p, log_q = (F.log_softmax(logits.float(), -1) for logits in (base, tuned))
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True).item()


@torch.no_grad()
def features(model: nn.Module, encoder: Encoder, texts: Sequence[list[int]], device: torch.device) -> Tensor:
    """The last hidden states' means over each text's tokens, (texts, D) in fp32."""
    model.eval()
    base: Any = model.base_model
    found = []
    for text in texts:
        ids = torch.tensor([[*encoder.front, *text]], device=device)
        hidden = base(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]  # (T, D)
        found.append(hidden[-len(text) :].float().mean(0).cpu())
    return torch.stack(found)


def drift(base: Tensor, tuned: Tensor) -> list[float]:
    """1 − cos of each text's features (texts, D)."""
    return (1 - F.cosine_similarity(base, tuned)).tolist()
