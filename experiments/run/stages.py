"""The work of one run, and what is measured of it: the part of result.json that was not known before."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from experiments.config.family import Family
from experiments.config.identity import key
from experiments.config.schema import Check, Config, Dtype, Part, Trains
from experiments.data import demonstrations, replay
from experiments.data.encode import Encoder
from experiments.data.reader import Reader
from experiments.evaluation import cost, forgetting
from experiments.evaluation.spectra import spectra
from experiments.evaluation.tfidf import predictor
from experiments.models.causal import check_causal
from experiments.models.load import decoder_start, load_model
from experiments.models.load import described as described_model
from experiments.models.weights import file_of, save
from experiments.objectives import objective_class, replayed_objective
from experiments.run.checks import check_splits, checked, usable
from experiments.run.prepare import checkpoint_activations, prepare
from experiments.run.quality import curve, evaluated
from experiments.run.sizes import check_sizes
from experiments.run.subject import Sizes, Subject
from experiments.store.result import (
    Bytes,
    Cost,
    Data,
    Flops,
    Forgetting,
    Loss,
    Measured,
    MemoryPeaks,
    Parameters,
    Point,
    Replayed,
    Seconds,
    Seeds,
    Spectra,
    Speed,
)
from experiments.support.memory import Memory, release, resident_bytes
from experiments.support.phase_clock import PhaseClock
from experiments.tasks import load_task
from experiments.tasks.base import TRAITS, Example, TaskData, TaskError
from experiments.tasks.json_lines import skipping
from experiments.training import seeds
from experiments.training.checkpoint import Checkpoints, State, seed_everything
from experiments.training.loop import Record, train
from experiments.training.optimizer import Optimizer, groups
from experiments.training.trackers import Trackers

CHECKPOINTS = "checkpoints"
DTYPES = {Dtype.bf16: torch.bfloat16, Dtype.fp32: torch.float32}


def measured(config: Config, directory: Path, device: torch.device, clock: PhaseClock, trackers: Trackers) -> Measured:
    """Carry the run out, or what is left of it; the measured part of its result."""
    memory = Memory()
    try:
        subject = prepared(config, directory, device, clock)
        state = trained(subject, memory, trackers)
        return result(subject, state, memory)
    finally:
        memory.end()


def prepared(config: Config, directory: Path, device: torch.device, clock: PhaseClock) -> Subject:
    """The data, the model, the base's figures, and the method's parameters put in."""
    with clock("data"), skipping(config.data.check is Check.warn) as skipped:
        data = load_task(config.task, seed=config.task.seed, draw=seeds.stream(config, "data"))
        if data.kind not in TRAITS:
            raise TaskError(f"task={data.name}: there is no kind of task {data.kind!r}; there are: {', '.join(TRAITS)}")
        check_splits(data)
    with clock("load"):
        chosen = objective_class(data.kind, described_model(config.model).family, config.objective)
        dtype, outputs = DTYPES[config.model.dtype], chosen.outputs(data)
        loaded = load_model(config.model, dtype=dtype, device=device, outputs=outputs)
        sizes = frozen_sizes(loaded.model)
    with clock("data"):
        start = decoder_start(loaded.model) if loaded.family is Family.encoder_decoder else None
        encoder = Encoder(loaded.tokenizer, config.optim.max_length, today=config.model.today, decoder_start=start)
        hopeless = data.hopeless if config.eval.stop_hopeless else None
        objective = chosen(encoder, data.labels, config.loss_on, hopeless)
        findings = checked(config, data, objective, skipped)
        data, left_out = usable(config, data, objective)
        rows = {split: objective.rows(examples) for split, examples in asked(config, data).items()}
        check_sizes(config, Reader(loaded.model, encoder, device), objective, rows)
        if loaded.family is Family.decoder:
            row = rows["train"][0]
            check_causal(loaded.model, [*row.prompt, *row.response], config.model.name)
        answering = predictor(config.method.predictor, data) if config.method.predictor else None
        replayed = replay.load(config.data, data, objective)
    base = None
    if config.forgetting.enabled:
        with clock("forgetting"):
            reader = Reader(loaded.model, objective.encoder, device)
            base = forgetting.before(config, reader, data.train, replayed.sources)
    with clock("inject"):
        objective = prepare(config, loaded, data, objective, device)
    reader = Reader(loaded.model, objective.encoder, device)
    if objective.encoder.front:
        with clock("data"):
            rows = {split: objective.rows(examples) for split, examples in asked(config, data).items()}
            check_sizes(config, reader, objective, rows)
    return Subject(
        *(config, directory, clock, data, reader, objective, rows, replayed, answering),
        *(findings, base, loaded.source, sizes, left_out + len(skipped), loaded.commit),
    )


def asked(config: Config, data: TaskData) -> dict[str, list[Example]]:
    """Every split as the model is asked: with demonstrations before each prompt that is no training."""
    scored = {"val": data.val, "test": data.test, "apart": data.apart}
    if config.method.shots:
        chosen = demonstrations.drawn(data, config.method.shots, seeds.stream(config, "data"))
        scored = {name: [demonstrations.shown(each, chosen) for each in examples] for name, examples in scored.items()}
    return {"train": data.train, **scored}


def frozen_sizes(model: nn.Module) -> Sizes:
    """Freeze the model, have its weights in memory, and measure it."""
    model.requires_grad_(False)
    for p in model.parameters():  # weights mapped from a file are read now, before training is measured
        p.sum()
    counts = [(p.numel(), p.numel() * p.element_size()) for p in model.parameters()]
    return Sizes(sum(n for n, _ in counts), sum(n_bytes for _, n_bytes in counts), resident_bytes())


def trained(subject: Subject, memory: Memory, trackers: Trackers) -> State:
    """Train to the last step, or find it done."""
    config, model, device = subject.config, subject.reader.model, subject.reader.device
    if not subject.trained:
        return State()
    if config.optim.gradient_checkpointing:
        checkpoint_activations(model)
    with subject.clock("cost"):
        release()  # what the probes and the data have used and no longer need
        memory.begin(subject.sizes.resident_bytes)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
    with subject.clock("data"):
        identity = f"{key(config)}-{subject.data.sha256[:16]}{subject.replay.sha256[:16]}"
        rows = list(subject.rows["train"])
        for source in subject.replay.sources:
            rows += replayed_objective(subject.objective, source.kind).rows(source.examples)
        order = subject.replay.mixture(len(subject.data.train), seeds.stream(config, "order"))
    with subject.clock("optimizer"):
        optimizer = Optimizer(groups(model), config.optim)
        seed_everything(seeds.stream(config, "dropout"))
    record = Record(
        checkpoints=Checkpoints(subject.directory / CHECKPOINTS, identity),
        metrics=subject.directory / "metrics.jsonl",
        memory=memory,
        clock=subject.clock,
        log_every=config.log_every,
        follow=trackers.log,
        curve=curve(subject),
    )
    return train(subject.reader, subject.objective, optimizer, rows, order.indices, config.optim, record)


def result(subject: Subject, state: State, memory: Memory) -> Measured:
    """Save, evaluate, probe; every number of the run."""
    config, data, clock, reader = subject.config, subject.data, subject.clock, subject.reader
    model, device = reader.model, reader.device
    with clock("save"):
        delta_bytes = save(config, subject.directory, model)
    with clock("evaluate"):
        quality = evaluated(subject)
    scores, forgot = quality.scores, None
    if subject.base is not None:
        with clock("forgetting"):
            known = {} if config.eval.part is Part.val else {data.sha256: scores.each}
            forgot = forgetting.after(config, subject.base, reader, known)
    with clock("cost"):
        flops = cost.flops(subject.objective, reader, subject.rows["train"], state.tokens)
        speed = cost.generate_tokens_per_s(reader, config.method.trains, subject.rows["test"])
        switch_s = cost.switch_s(model, config.method.trains, file_of(config, subject.directory), device)
        changed = spectra_of(subject) if config.eval.spectra else None
    n_trainable = sum(p.numel() for p in subject.trained)
    return Measured(
        metric=data.metric,
        ceiling=data.ceiling,
        quality=scores.means,
        quality_by_part=quality.by_part,
        scores=tuple(scores.each),
        groups=quality.groups,
        validation=quality.validation,
        loss=Loss(
            train_last=state.metrics[-1]["loss"] if state.metrics else None, validation=quality.validation["loss"]
        ),
        n_test=len(scores.each),
        parameters=Parameters(
            trainable=n_trainable,
            added=sum(p.numel() for p in model.parameters()) - subject.sizes.n_base,
            total=subject.sizes.n_base,
            share=n_trainable / subject.sizes.n_base,
        ),
        bytes=Bytes(delta=delta_bytes, full_copy=subject.sizes.base_bytes),
        memory=MemoryPeaks(
            peak_bytes=max(memory.peak_bytes(), state.peak_bytes),
            training_peak_bytes=state.peak_bytes,
            training_increase_bytes=state.increase_bytes,
            device_peak_bytes=state.device_peak_bytes if device.type == "cuda" else None,
        ),
        tokens_per_s=state.tokens / state.wall_s if state.wall_s else 0.0,
        step_s=median_step_s(state),
        flops=Flops(**flops),
        curve=tuple(Point(flops=flops["per_token"] * point["tokens"], **point) for point in state.curve) or None,
        seeds=Seeds(**seeds.chosen(config)),
        cost=Cost(switch_s=switch_s, generate_tokens_per_s=Speed(**speed)),
        forgetting=msgspec.convert(forgot, Forgetting | None),
        spectra=msgspec.convert(changed, Spectra | None),
        data=described(subject),
        base=subject.source,
        base_commit=subject.commit,
        seconds=Seconds(**clock.seconds()),
    )


def spectra_of(subject: Subject) -> dict[str, Any]:
    """What the training did to the weights."""
    config, reader = subject.config, subject.reader
    if config.method.trains is not Trains.everything:
        return spectra(reader.model)
    outputs = type(subject.objective).outputs(subject.data)
    how = {"dtype": DTYPES[config.model.dtype], "device": reader.device, "outputs": outputs}
    return spectra(reader.model, lambda: load_model(config.model, **how).model)


def described(subject: Subject) -> Data:
    """What the run was trained and scored on."""
    config, rows = subject.config, subject.rows
    cuts = [row.cut for part in rows.values() for row in part]
    replayed = subject.replay.result(config.optim.steps, config.optim.batch_size) if subject.trained else None
    return Data(
        sha256=subject.data.sha256,
        test_sha256=subject.data.test_sha256,
        sources=subject.data.sources,
        n_train=len(rows["train"]),
        n_pool=subject.data.pool,
        n_val=len(rows["val"]),
        n_test=len(rows["test"]),
        n_left_out=subject.n_left_out if config.data.check is Check.warn else None,
        n_truncated=sum(cut.tokens > 0 for cut in cuts),
        n_turns_cut=sum(cut.turns for cut in cuts),
        n_sentences_cut=sum(cut.sentences for cut in cuts),
        checks={} if subject.findings is None else subject.findings.counts(),
        replay=msgspec.convert(replayed, Replayed | None),
    )


def median_step_s(state: State) -> float:
    ends = [0.0, *(row["wall_s"] for row in state.metrics)]
    return statistics.median([b - a for a, b in pairwise(ends)]) if state.metrics else 0.0
