"""One run: a model, a method, a task, a seed; trained, evaluated, saved and measured.

    python -m experiments.run method=lora task=ha_json model=smollm2 seed=0 optim.lr=5e-4

The directory is named by a hash of the configuration, so the same command goes on where it was stopped, and prints
the result at once where it is complete.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import shutil
import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import nn

import deltatune as dt
from experiments.batches import Encoder, Row, collate, indices
from experiments.checkpoint import Checkpoints, State, seed_everything
from experiments.config import Config, Device, Dtype, Trains, check, key, plain, register, run_name
from experiments.evaluate import answers, mean_loss
from experiments.models import Loaded, load_model
from experiments.optimizer import Optimizer, groups
from experiments.record import Memory, Phases, environment, write_json, write_text
from experiments.tasks import Example, TaskData, load_task, score
from experiments.train import train

NAME = "run"  # of the delta in the model and in its file
CHECKPOINTS = "checkpoints"
DTYPES = {Dtype.bf16: torch.bfloat16, Dtype.fp32: torch.float32}


def run(config: Config) -> dict[str, Any]:
    """Carry the run out, or what is left of it, and return its result; a failure is recorded, then raised."""
    check(config)
    directory = Path(config.out) / run_name(config)
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory):
        file = directory / "result.json"
        if file.is_file() and (result := json.loads(file.read_text()))["status"] == "complete":
            return result
        file.unlink(missing_ok=True)
        device = set_up(config)
        head = {
            "format": 1,
            "status": "complete",
            "error": None,
            "config": plain(config),
            "key": key(config),
            "method": config.method.name,
            "model": config.model.name,
            "task": config.task.name,
            "seed": config.seed,
            "lr": None if config.method.trains is Trains.nothing else config.optim.lr,
            "steps": 0 if config.method.trains is Trains.nothing else config.optim.steps,
            "batch_size": config.optim.batch_size,
            "environment": environment(device),
        }
        write_text(directory / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
        write_json(directory / "environment.json", head["environment"])
        try:
            result = head | measured(config, directory, device)
        except Exception as error:
            write_json(file, head | {"status": "failed", "error": f"{type(error).__name__}: {error}"})
            raise
        write_json(file, result)
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)  # a complete run has its delta and needs none
        return result


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Refuse a second process in the same run."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"{directory}: another process is at work in this run; wait for it, or stop it"
            ) from None
        yield


def set_up(config: Config) -> torch.device:
    """Threads, seeds, determinism; the device."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    cuda = torch.cuda.is_available() if config.device is Device.auto else config.device is Device.cuda
    if cuda and not torch.cuda.is_available():
        raise ValueError("device=cuda: torch finds no CUDA device here; say device=cpu, or auto")
    torch.use_deterministic_algorithms(not cuda)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cuda" if cuda else "cpu")


def measured(config: Config, directory: Path, device: torch.device) -> dict[str, Any]:
    """The work itself, and the part of the result that is measured."""
    phase, memory = Phases(), Memory()
    with phase("data"):
        data = load_task(config.task, seed=config.task.seed)
        parts = {"train": data.train, "val": data.val, "test": data.test}
        if empty := [part for part, examples in parts.items() if not examples]:
            raise ValueError(f"task={data.name} has no examples in {', '.join(empty)}; give it some, or raise task.n_*")
    with phase("load"):
        loaded = load_model(config.model, dtype=DTYPES[config.model.dtype], device=device, labels=data.labels)
        model = loaded.model
        model.requires_grad_(False)
        for p in model.parameters():  # so that weights mapped from a file are in memory before training is measured
            p.sum()
    total = sum(p.numel() for p in model.parameters())
    full_copy_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    memory.begin()
    with phase("inject"):
        encoder = put_in(config, loaded, data, device)
        trained = [p for p in model.parameters() if p.requires_grad]
    with phase("data"):
        rows = {part: encoder.rows(examples) for part, examples in parts.items()}
    state = State(peak_bytes=memory.peak_bytes())
    if trained:
        checkpoints = Checkpoints(directory / CHECKPOINTS, f"{key(config)}-{data.sha256[:16]}")
        state = trained_state(config, directory, model, encoder, rows["train"], device, checkpoints, memory)
    with phase("save"):
        delta_bytes = saved_bytes(config, directory, model)
    with phase("evaluate"):
        loss = mean_loss(model, rows["val"], encoder.pad, config.eval.batch_size, device)
        predictions = answers(model, encoder, rows["val"], config.eval, device, config.log_every)
        validation = score(data, predictions, data.val) | {"loss": loss}
        predictions = answers(model, encoder, rows["test"], config.eval, device, config.log_every)
        quality = score(data, predictions, data.test)
    write_text(directory / "predictions.jsonl", prediction_lines(data, predictions))
    n_trainable = sum(p.numel() for p in trained)
    seconds = phase.seconds | {"train": state.wall_s}
    return {
        "quality": quality,
        "validation": validation,
        "metric": "accuracy" if data.kind == "classify" else "exact_match",
        "loss": {"train_last": state.metrics[-1]["loss"] if state.metrics else None, "validation": loss},
        "n_test": len(data.test),
        "parameters": {"trainable": n_trainable, "total": total, "share": n_trainable / total},
        "bytes": {"delta": delta_bytes, "full_copy": full_copy_bytes},
        "memory": {"peak_bytes": state.peak_bytes, "training_increase_bytes": state.increase_bytes}
        | ({"device_peak_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else {}),
        "seconds": seconds | {"total": sum(seconds.values())},
        "tokens_per_s": state.tokens / state.wall_s if state.wall_s else 0.0,
        "step_s": median_step_s(state),
        "data": {
            "sha256": data.sha256,
            "sources": data.sources,
            "n_train": len(data.train),
            "n_val": len(data.val),
            "n_test": len(data.test),
            "n_at_max_length": sum(row.n_tokens >= config.optim.max_length for part in rows.values() for row in part),
        },
        "base": loaded.source,
    }


def put_in(config: Config, loaded: Loaded, data: TaskData, device: torch.device) -> Encoder:
    """Make the method's parameters ready to train; the encoder that fits them."""
    model, max_length = loaded.model, config.optim.max_length
    encoder = Encoder(loaded.tokenizer, max_length, data.labels)
    if config.method.trains is Trains.everything:
        model.requires_grad_(True)
    if config.method.trains is not Trains.deltas:
        return encoder
    chosen = rules(config, data)
    first = rows_of_step(encoder, data, config, 0)
    starts_from_data = any(rule.method.prime is not dt.DeltaModule.prime for rule in chosen)
    example = collate(first, encoder.pad, device).inputs if starts_from_data else None
    print(dt.inject(model, *chosen, name=NAME, example=example))
    if any(issubclass(rule.method, dt.Prompt) for rule in chosen):
        encoder = Encoder(loaded.tokenizer, max_length, data.labels, tuple(dt.prompt_ids(model, NAME)))
    dt.verify(model, **collate(rows_of_step(encoder, data, config, 0)[:1], encoder.pad, device).inputs)
    return encoder


def rules(config: Config, data: TaskData) -> list[dt.Rule]:
    """The method's rules and, for classification, the new head."""
    found = []
    for rule in config.method.rules:
        if rule.method not in dt.METHODS:
            raise ValueError(f"method.rules: no method class {rule.method!r}; there are: {', '.join(dt.METHODS)}")
        found.append(dt.METHODS[rule.method].on(rule.where, **rule.hparams))
    return [*found, dt.Head.on()] if data.kind == "classify" else found


def rows_of_step(encoder: Encoder, data: TaskData, config: Config, step: int) -> list[Row]:
    chosen = indices(step, config.optim.batch_size, len(data.train), config.seed)
    return encoder.rows([data.train[i] for i in chosen])


def trained_state(
    config: Config,
    directory: Path,
    model: nn.Module,
    encoder: Encoder,
    rows: list[Row],
    device: torch.device,
    checkpoints: Checkpoints,
    memory: Memory,
) -> State:
    """Train to the last step, or find it done."""
    if config.optim.gradient_checkpointing:
        checkpoint_activations(model)
    return train(
        model,
        Optimizer(*groups(model), config.optim),
        rows,
        config.optim,
        seed=config.seed,
        pad=encoder.pad,
        device=device,
        checkpoints=checkpoints,
        metrics=directory / "metrics.jsonl",
        memory=memory,
        log_every=config.log_every,
    )


def checkpoint_activations(model: nn.Module) -> None:
    """Keep each block's input alone and run the block again in the backward."""
    with warnings.catch_warnings():
        # Newer transformers 5 rename this method and warn; older ones have no other.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]


def saved_bytes(config: Config, directory: Path, model: nn.Module) -> int:
    """Write what the method trained and return its size on disk: the delta, or the whole model in its dtype."""
    if config.method.trains is Trains.nothing:
        return 0
    if config.method.trains is Trains.deltas:
        return dt.save(model, directory / "delta.safetensors", name=NAME)
    file, temporary = directory / "model.safetensors", directory / "model.safetensors.part"
    tensors = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}  # tied ones once
    tensors |= {name: b.cpu() for name, b in model.named_buffers() if name in model.state_dict()}
    save_file(tensors, temporary, {"format": "pt"})
    temporary.replace(file)
    return file.stat().st_size


def prediction_lines(data: TaskData, predictions: list[str]) -> str:
    metric = "accuracy" if data.kind == "classify" else "exact_match"
    lines = []
    for example, prediction in zip(data.test, predictions, strict=True):
        correct = score(data, [prediction], [example])[metric] == 1
        row = {"prompt": prompt_text(example), "gold": example.completion, "prediction": prediction, "correct": correct}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def prompt_text(example: Example) -> str:
    return example.messages[-1]["content"] if example.messages else example.text


def median_step_s(state: State) -> float:
    ends = [0.0, *(row["wall_s"] for row in state.metrics)]
    return statistics.median([b - a for a, b in pairwise(ends)]) if state.metrics else 0.0


@hydra.main(version_base="1.3", config_path=str(Path(__file__).with_name("conf")), config_name="config")
def main(composed: DictConfig) -> None:
    config = cast(Config, OmegaConf.to_object(composed))
    result = run(config)
    quality = "  ".join(f"{name} {value:.3f}" for name, value in result["quality"].items())
    print(f"{Path(config.out) / run_name(config)}\n{result['method']} seed {result['seed']}: {quality}")


register()

if __name__ == "__main__":
    # By the module's name: launchers that pickle the function (joblib, submitit) can send names then, and need not
    # send torch.
    importlib.import_module("experiments.run").main()
