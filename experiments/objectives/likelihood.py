"""Log-likelihoods: of given answers after a prompt, and of whole texts.

The answers of a prompt share its cache: the prompt is read once, however many answers there are.
Legend: B prompts, T tokens of the longest, N pairs of a prompt and an answer, L tokens of the longest answer, V
vocabulary.
"""

from __future__ import annotations

import copy
import heapq
import inspect
import json
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.data.batch import IGNORED, Batch, inputs_of, padded, token_labels
from experiments.data.encode import Encoded, Option
from experiments.data.reader import Reader
from experiments.objectives.token_loss import token_losses

TOKENS = 1024  # a forward whose logits are kept has no more: 200 MB in fp32 on a vocabulary of 49,152
CACHED = 1 << 14  # tokens of the copies of a cache: 400 MB for SmolLM2

Ids = tuple[int, ...]
Node = tuple[float, Ids]  # -log p of a label's beginning, and its tokens


@torch.no_grad()
def likeliest_choice(reader: Reader, rows: Sequence[Encoded]) -> list[str]:
    """The option of each row with the highest log-likelihood / size."""
    scores = log_likelihoods(reader, rows)
    best = [max(range(len(row.options)), key=lambda i: of[i] / row.options[i].size) for row, of in zip(rows, scores)]
    return [row.options[i].text for row, i in zip(rows, best)]


@torch.no_grad()
def log_likelihoods(reader: Reader, rows: Sequence[Encoded]) -> list[list[float]]:
    """log p(option | prompt) in nats, for every option of every row."""
    prompts = Prompts(reader, rows)
    found = [[prompts.first[b, option.ids[0]].item() for option in row.options] for b, row in enumerate(rows)]
    pairs = [(b, i) for b, row in enumerate(rows) for i, option in enumerate(row.options) if len(option.ids) > 1]
    pairs.sort(key=lambda pair: len(rows[pair[0]].options[pair[1]].ids))
    ids = [rows[b].options[i].ids for b, i in pairs]
    for part in packed([len(one) for one in ids], prompts.most):
        logits = prompts.after([pairs[k][0] for k in part], [ids[k][:-1] for k in part])
        wanted = padded([ids[k][1:] for k in part], IGNORED, reader.device)
        losses = F.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
        for k, loss in zip(part, losses.sum(1).tolist()):
            b, i = pairs[k]
            found[b][i] -= loss
    return found


@torch.no_grad()
def likeliest_label(reader: Reader, labels: Sequence[Option], rows: Sequence[Encoded]) -> list[str]:
    """The label of each row with the highest log-likelihood, found without scoring them all.

    A best-first search: a beginning of a label is at least as likely as the whole, so a whole label that is likelier
    than every beginning still open is the likeliest. To open a beginning, a label that has it is read to its end, which
    opens all its longer beginnings too; so no label is read twice. Each round opens twice as many as the last: a model
    that is sure needs a few, and any a few rounds. All labels end in the end token, so none begins another.
    """
    whole = {tuple(label.ids): label.text for label in labels}
    after: dict[Ids, set[int]] = defaultdict(set)  # a beginning -> the tokens that go on
    example: dict[Ids, Ids] = {}  # a beginning -> the shortest label that has it
    for ids in sorted(whole, key=len):
        for n, token in enumerate(ids):
            after[ids[:n]].add(token)
            example.setdefault(ids[:n], ids)
    prompts = Prompts(reader, rows)
    heaps: list[list[Node]] = [[(-logp[t].item(), (t,)) for t in sorted(after[()])] for logp in prompts.first]
    for heap in heaps:
        heapq.heapify(heap)
    width = 1
    while opened := [(b, node) for b, heap in enumerate(heaps) for node in best(heap, whole, width)]:
        opened.sort(key=lambda one: len(example[one[1][1]]))
        for part in packed([len(example[node[1]]) for _, node in opened], prompts.most):
            nodes = [opened[k] for k in part]
            read = [example[node[1]] for _, node in nodes]
            logp = prompts.after([b for b, _ in nodes], [ids[:-1] for ids in read]).log_softmax(-1)
            for (b, node), ids, own in zip(nodes, read, logp):
                for grown in beginnings(node, ids, after, own):
                    heapq.heappush(heaps[b], grown)
        width *= 2
    return [whole[heap[0][1]] for heap in heaps]


def beginnings(node: Node, ids: Ids, after: dict[Ids, set[int]], logp: Tensor) -> Iterator[Node]:
    """What reading a label from one of its beginnings opens: the label itself, and all that part from it on the way.

    logp: log p after each token of the label, (L, V).
    """
    cost, start = node
    for n in range(len(start), len(ids)):
        tokens = sorted(after[ids[:n]])
        costs = dict(zip(tokens, (-logp[n - 1, tokens]).tolist()))
        yield from ((cost + costs[token], (*ids[:n], token)) for token in tokens if token != ids[n])
        cost += costs[ids[n]]
    yield cost, ids


def best(heap: list[Node], whole: Container[Ids], width: int) -> list[Node]:
    """Take off the best beginnings, `width` at most, that are likelier than every whole label found so far."""
    found = []
    while len(found) < width and heap and heap[0][1] not in whole:
        found.append(heapq.heappop(heap))
    return found


class Prompts:
    """Prompts that were read once, to be gone on from as often as wanted. first: log p of the next token, (B, V)."""

    def __init__(self, reader: Reader, rows: Sequence[Encoded]):
        self.model, self.pad, self.device = reader.model, reader.encoder.pad, reader.device
        model, pad, device = self.model, self.pad, self.device
        self.mask = padded([[1] * len(row.prompt) for row in rows], 0, device, left=True)  # (B, T)
        ids = padded([row.prompt for row in rows], pad, device, left=True)
        head = model.get_output_embeddings()  # type: ignore[operator]
        with head.register_forward_pre_hook(last):
            out = model(
                input_ids=ids,
                attention_mask=self.mask,
                use_cache=True,
                **positions(model, self.mask, self.mask.shape[1]),
            )
        self.cache = out.past_key_values
        self.first = out.logits[:, -1].float().log_softmax(-1)
        self.most = max(1, CACHED // self.mask.shape[1])  # pairs at a time

    def after(self, of: Sequence[int], ids: Sequence[Sequence[int]]) -> Tensor:
        """Logits (N, L, V) in fp32, of what follows each of the tokens that follow the prompts number `of`."""
        index = torch.tensor(of, device=self.device)
        cache = copy.deepcopy(self.cache)
        cache.batch_select_indices(index)
        fed = padded(ids, self.pad, self.device)
        mask = torch.cat([self.mask[index], padded([[1] * len(one) for one in ids], 0, self.device)], 1)  # (N, T + L)
        return self.model(
            input_ids=fed,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **positions(self.model, mask, fed.shape[1]),
        ).logits.float()


@torch.no_grad()
def text_likelihoods(reader: Reader, rows: Sequence[Encoded]) -> list[str]:
    """'[nll_sum, n_tokens, n_bytes]' of each row's response: nll in nats over all its tokens, and its text's bytes."""
    found = []
    for part in packed([row.n_tokens for row in rows]):
        chosen = [rows[i] for i in part]
        labels = padded([token_labels(row) for row in chosen], IGNORED, reader.device)
        losses = token_losses(reader.model, Batch(inputs_of(chosen, reader.encoder.pad, reader.device), labels))
        counts = [len(row.response) for row in chosen]
        for row, own in zip(chosen, losses.split(counts)):
            text = reader.encoder.tokenizer.decode(row.response, skip_special_tokens=False)
            found.append(json.dumps([own.sum(dtype=torch.float64).item(), len(own), len(text.encode())]))
    return found


def last(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The head's input at the last position alone, as one block."""
    return (args[0][:, -1:].contiguous(), *args[1:])


def positions(model: nn.Module, mask: Tensor, n: int) -> dict[str, Tensor]:
    """The positions of the last n tokens, counted from each row's first real one, where the model takes positions.

    As in generation: padding on the left must not move a row.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -n:]}


def packed(lengths: Sequence[int], most: int = TOKENS) -> Iterator[list[int]]:
    """Neighbours together, `most` of them at most and within TOKENS when padded to the longest; at least one."""
    part: list[int] = []
    longest = 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if part and (len(part) == most or longest * (len(part) + 1) > TOKENS):
            yield part
            part, longest = [], length
        part.append(i)
    if part:
        yield part
