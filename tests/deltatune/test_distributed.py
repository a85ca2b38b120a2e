"""Deltas under DistributedDataParallel and FSDP2: two processes on gloo learn what one does on the whole batch."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import deltatune as dt
from tests.support.tolerance import agree, reduction

STEPS = 3
RULES = {"lora": lambda: dt.LoRA.on(rank=4, alpha=8), "adapter": lambda: dt.Adapter.on(width=8), "ia3": dt.IA3.on}


def model_and_batch(method: str) -> tuple[nn.Module, Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, num_hidden_layers=2, tie_word_embeddings=False, **sizes))
    dt.inject(model, RULES[method]())
    torch.manual_seed(1)
    for _, p in dt.parameters(model):  # B = 0 would leave A without a gradient
        with torch.no_grad():
            p.add_(torch.randn_like(p) * 0.05)
    return model, torch.randint(0, 50, (4, 12))


def train(model: nn.Module, ids: Tensor) -> list[float]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(STEPS):
        loss = model(ids, use_cache=False).logits.pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def work(rank: int, port: int, kind: str, method: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, ids = model_and_batch(method)
    if kind == "ddp":
        wrapped: Any = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (2,))
        for block in model.model.layers:  # type: ignore[union-attr]
            fully_shard(block, mesh=mesh)
        wrapped = fully_shard(model, mesh=mesh)
    train(wrapped, ids[rank * 2 : rank * 2 + 2])
    found = {n: p.full_tensor() if hasattr(p, "full_tensor") else p for n, p in dt.parameters(model)}
    torch.save({n: p.detach().clone() for n, p in found.items()}, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    # The wrapped model outlives the group. Its end would wait, with Python's lock in hand, for gloo's thread, which may
    # wait for that lock; torch 2.13 then hangs for good. All that is wanted is on disk, so nothing is ended.
    os._exit(0)


def work_with_one_off(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, ids = with_one_off()
    train(DistributedDataParallel(model), ids[rank * 2 : rank * 2 + 2])
    torch.save({n: p.detach().clone() for n, p in dt.parameters(model)}, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # what `work` says holds here too


def with_one_off() -> tuple[nn.Module, Tensor]:
    """LoRA that is on, and adapters that are off."""
    model, ids = model_and_batch("lora")
    dt.inject(model, dt.Adapter.on(width=4), name="off")
    dt.use(model, "default")
    return model, ids


def test_a_delta_that_is_off_asks_for_no_gradient(tmp_path: Path) -> None:
    """DistributedDataParallel, which waits for a gradient of everything that needs one, does not wait for it."""
    model, ids = with_one_off()
    before = {n: p.detach().clone() for n, p in dt.parameters(model)}
    train(model, ids)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work_with_one_off, args=(port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    off = {n for n, _ in dt.parameters(model, "off")}
    for name, p in dt.parameters(model):
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name], before[name]) is (name in off)
        agree(first[name], p, 2 * STEPS * reduction(model), ids.numel())
    assert {*vars(model)["_ddp_params_and_buffers_to_ignore"]} == off
    dt.use(model, "off", "default")
    assert "_ddp_params_and_buffers_to_ignore" not in vars(model)


QUICK = [("ddp", "lora"), ("fsdp2", "lora")]
SLOW = [
    pytest.param(kind, method, marks=pytest.mark.slow) for kind in ("ddp", "fsdp2") for method in ("adapter", "ia3")
]


@pytest.mark.parametrize(("kind", "method"), [*QUICK, *SLOW])
def test_two_processes_learn_what_one_does(kind: str, method: str, tmp_path: Path) -> None:
    model, ids = model_and_batch(method)
    before = {n: p.detach().clone() for n, p in dt.parameters(model)}
    train(model, ids)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, kind, method, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, p in dt.parameters(model):
        assert not torch.equal(before[name], p)
        agree(first[name], p, 2 * STEPS * reduction(model), ids.numel())
        assert torch.equal(first[name], second[name])
