"""Sublayers in a trace: what is added to a stream, where that is computed, and what kind of computation it is.

A sublayer's end is what is added to a tensor that it was computed from: z = x + f(x). A stream is x, z and what further
sums make of them. Sets of nodes are whole numbers, bit n for node n.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from deltatune.trace import Trace
from deltatune.values import Call

# operations that only move values, by their first input
MOVES = {
    "view", "_unsafe_view", "reshape", "transpose", "t", "permute", "expand", "clone", "contiguous", "_to_copy",
    "slice", "select", "unsqueeze", "squeeze", "alias", "detach", "roll", "index", "index_select", "split",
    "split_with_sizes",
    "chunk", "unbind", "narrow", "flatten", "unflatten", "native_dropout", "dropout", "repeat", "gather", "unfold",
    "masked_fill", "as_strided", "constant_pad_nd", "im2col", "col2im", "_reshape_alias", "flip", "clamp",
}  # fmt: skip
SUMS = {"add", "_add_relu"}
SCALES = {"mul", "div"}
GATES = {"sigmoid", "tanh", "_softmax", "hardsigmoid", "softplus", "silu", "relu"}
JOINS = {
    "cat",
    "stack",
    "where",
    "index_put",
    "copy",
    "slice_scatter",
    "scatter",
    "index_add",
    "index_copy",
    "scatter_add",
}
CONTRACTIONS = (
    "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution", "_convolution", "attention", "block",
    "_scaled_dot", "_grouped_mm", "lstm", "gru", "rnn", "_thnn", "_fft", "avg_pool", "adaptive_avg", "_adaptive_avg",
    "max_pool", "mkldnn", "linear", "_native_multi_head", "quantized", "_weight", "embedding_bag",
)  # fmt: skip
MIXERS = ("attention", "_scaled_dot", "lstm", "gru", "rnn", "_thnn", "_fft", "cumsum", "_native_multi_head", "avg_pool")


class Sublayer(NamedTuple):
    """stream + branch = total, as nodes."""

    stream: int
    branch: int
    total: int


class Sublayers:
    """The sublayers of a trace, and questions about them."""

    def __init__(self, trace: Trace):
        self.trace, self.nodes, self.calls = trace, trace.nodes, trace.calls
        self.made: dict[int, list[int]] = {}  # node -> calls whose first output it is, innermost first
        self.of_map: dict[int, int] = {}  # node -> the map's call whose output it is
        for i, call in enumerate(self.calls):
            for n in call.outputs[:1]:
                if n not in call.inputs:  # a dropout in eval makes nothing
                    self.made.setdefault(n, []).insert(0, i)
            if call.is_map:
                self.of_map |= dict.fromkeys(call.outputs[:1], i)
        self._dependences()
        self.all = list(self._sums())

    def _dependences(self) -> None:
        """before[n]: what n was computed from; through[n]: what it was computed from by way of a contraction."""
        self.before, self.through, self.weight = [], [], []
        for n, node in enumerate(self.nodes):
            before = through = 0
            for i in node.inputs:
                before |= self.before[i] | 1 << i
                through |= self.through[i]
            contracts = node.op.startswith(CONTRACTIONS) or n in self.of_map
            self.before.append(before)
            self.through.append(before if contracts else through)
            first = node.inputs[0] if node.inputs else None
            moved = node.op in MOVES or node.op in SCALES or node.op in JOINS
            self.weight.append(node.op == "parameter" or (moved and first is not None and self.weight[first]))

    def _sums(self) -> Iterator[Sublayer]:
        streams: dict[int, int] = {}
        for n, node in enumerate(self.nodes):
            if node.op not in SUMS or len(node.inputs) < 2 or not node.floating:
                continue
            for a, b in (node.inputs[:2], node.inputs[1::-1]):
                if self.weight[a]:  # a table of positions, say, that was added before
                    continue
                stream = streams.get(a, 0) | 1 << a
                known = self.through[b] & stream
                if known and self.nodes[a].shape == self.nodes[b].shape == node.shape:
                    streams[n] = stream | 1 << n
                    yield Sublayer(known.bit_length() - 1, b, n)
                    break
            else:
                continue
        self.streams = streams

    # where a sublayer is computed

    def ends(self, sub: Sublayer) -> list[Call]:
        """The modules whose outputs, moved, scaled by a constant or summed, are what is added."""
        return [self.calls[c] for c in dict.fromkeys(self._ends(sub, sub.branch))]

    def _ends(self, sub: Sublayer, n: int) -> Iterator[int]:
        if n == sub.stream or not self.through[n] >> sub.stream & 1:
            return
        if self.made.get(n):
            yield self.made[n][0]
            return
        for i in self._behind(sub, n):
            yield from self._ends(sub, i)

    def _behind(self, sub: Sublayer, n: int) -> list[int]:
        """The inputs of a node that the branch goes on in, if it only moves, scales or sums them."""
        node = self.nodes[n]
        if node.op in MOVES:
            return list(node.inputs[:1])
        if node.op in SUMS or node.op in JOINS:
            return list(node.inputs)
        if node.op in SCALES:
            inputs = [i for i in node.inputs if self.through[i] >> sub.stream & 1]
            inputs = [i for i in inputs if self.nodes[i].shape == node.shape] or inputs
            return [i for i in inputs if not self._is_gate(i)] or inputs[:1]
        return []

    def _is_gate(self, n: int) -> bool:
        while self.nodes[n].op in MOVES:
            n = self.nodes[n].inputs[0]
        return self.nodes[n].op in GATES

    def inside(self, sub: Sublayer, branch: int) -> list[int]:
        """The nodes between the stream and a part of what is added to it."""
        upstream = self.before[branch] | 1 << branch
        return [n for n in range(sub.stream + 1, branch + 1) if upstream >> n & 1 and self.before[n] >> sub.stream & 1]

    # what kind it is

    def parts(self, sub: Sublayer) -> list[int]:
        """The summands of what is added, each computed from the stream apart, as attention and feed-forward may be."""
        waiting, parts = [sub.branch], []
        while waiting:
            n = waiting.pop()
            behind = self._behind(sub, n) if not self.made.get(n) else []
            behind = [i for i in behind if self.through[i] >> sub.stream & 1]
            waiting += behind
            parts += [] if behind else [n]
        return parts

    def is_feed_forward(self, sub: Sublayer, part: int) -> bool:
        """Whether every position of a part is computed from that position alone, in two contractions or more."""
        inside = self.inside(sub, part)
        return not any(self._mixes(n) for n in inside) and bool(
            self.last_maps(sub, part, inside) or self._deep(sub, part)
        )

    def _deep(self, sub: Sublayer, part: int) -> bool:
        """Whether a contraction follows another: what was read through one goes into one."""
        return any(
            self.through[i] >> sub.stream & 1
            for n in self.inside(sub, part)
            if self.nodes[n].op.startswith(CONTRACTIONS)
            for i in self.nodes[n].inputs
        )

    def _mixes(self, n: int) -> bool:
        node = self.nodes[n]
        if node.op.startswith(MIXERS):
            return node.floating
        if node.op in ("bmm", "baddbmm", "mm", "addmm", "mv"):
            return not any(self.weight[i] for i in node.inputs)
        if node.op.endswith("convolution"):
            weight = self.nodes[node.inputs[1]].shape
            alone = all(k == 1 for k in weight[2:])
            return not alone and (len(weight) == 3 or weight[1] != 1)
        return False

    def last_maps(self, sub: Sublayer, part: int, inside: list[int] | None = None) -> list[Call]:
        """The last maps of a part that read what another contraction made of the stream: the hidden's readers."""
        maps, seen, waiting = [], set(), [part]
        while waiting:
            n = waiting.pop()
            if n in seen or not self.before[n] >> sub.stream & 1:
                continue
            seen.add(n)
            if n in self.of_map:
                call = self.calls[self.of_map[n]]
                if call.inputs and self.through[call.inputs[0]] >> sub.stream & 1:
                    maps.append(call)
                continue
            waiting += self.nodes[n].inputs
        return maps

    def span(self, sub: Sublayer, part: int) -> Call | None:
        """The outermost module that computes a part from the stream, from before its first map to its end."""
        n = part
        while True:
            calls = [self.calls[c] for c in self.made.get(n, [])]
            for call in reversed(calls):
                if call.is_map or call.last > sub.total or not call.inputs:
                    continue
                first = call.inputs[0]
                reads = first == sub.stream or self.before[first] >> sub.stream & 1
                if reads and not self.through[first] >> sub.stream & 1 and self._contracts(call):
                    return call
            if calls and not self._contracts(calls[0]) and calls[0].inputs:  # a norm behind, or a scale
                n = calls[0].inputs[0]
                continue
            behind = [i for i in self._behind(sub, n) if self.through[i] >> sub.stream & 1]
            if calls or len(behind) != 1:
                return None
            n = behind[0]

    def _contracts(self, call: Call) -> bool:
        return any(self.nodes[n].op.startswith(CONTRACTIONS) for n in range(call.first, call.last))

    # what maps do

    def chooses(self, call: Call) -> bool:
        """Whether a map's output, but for its shape and scale, is what a choice of the largest is made from."""
        seen, waiting = set(), list(call.outputs[:1])
        while waiting:
            n = waiting.pop()
            if n in seen:
                continue
            seen.add(n)
            for m in self.readers.get(n, ()):
                op = self.nodes[m].op
                if op in ("topk", "argmax", "sort", "argsort"):
                    return True
                if op in MOVES or op in SUMS or op in SCALES or op in GATES or op in JOINS:
                    waiting.append(m)
        return False

    @property
    def readers(self) -> dict[int, list[int]]:
        """The nodes computed from each node at once."""
        if not hasattr(self, "_readers"):
            self._readers: dict[int, list[int]] = {}
            for n, node in enumerate(self.nodes):
                for i in node.inputs:
                    self._readers.setdefault(i, []).append(n)
        return self._readers
