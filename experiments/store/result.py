"""A run's result.json, as one tree: every key with its type, its meaning and its unit.

files.py reads a file into the tree and checks it. All that is made of results is derived from here by schema.py: the
columns of tables and queries, the report, the page on a run's files. A key that may be absent has the default None,
and where it is None it is left out of the file. One tree is one file, which may be long for it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

FORMAT = 2
TRAINING = ("forward", "backward", "optimizer")  # the phases that are training itself


def about(description: str, column: str | None = None) -> Meta:
    """What a field means. column: its name in flat tables, where that is not its own; "" for one that is in none."""
    return Meta(description=description, extra={} if column is None else {"column": column})


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a run was carried out; of a run whose process died nothing is known."""

    torch: Annotated[str | None, about("version of torch")] = None
    transformers: Annotated[str | None, about("version of transformers")] = None
    deltatune: Annotated[str | None, about("version of deltatune")] = None
    python: Annotated[str | None, about("version of Python")] = None
    cpu: Annotated[str | None, about("the processor's name")] = None
    threads: Annotated[int | None, about("threads that torch computed with")] = None
    device: Annotated[str | None, about("`cpu`, or the name of the GPU")] = None
    commit: Annotated[str | None, about("commit of the checkout; absent outside one", "git_commit")] = None
    dirty: Annotated[bool | None, about("whether the checkout had changes that were not committed")] = None
    platform: Annotated[str | None, about("the operating system")] = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    train_last: Annotated[
        float | None,
        about("loss of the last training step, nats a labelled token; null without training", "train_loss"),
    ]
    validation: Annotated[float, about("loss on the validation examples, nats a labelled token", "validation_loss")]


@dataclass(frozen=True, kw_only=True)
class Parameters:
    trainable: Annotated[int, about("parameters that were trained")]
    added: Annotated[int, about("parameters that the base model does not have")]
    total: Annotated[int, about("parameters of the base model")]
    share: Annotated[float, about("trainable / total")]


@dataclass(frozen=True, kw_only=True)
class Bytes:
    delta: Annotated[int, about("bytes on disk of what was trained: the delta, or the whole model", "delta_bytes")]
    full_copy: Annotated[int, about("bytes of a copy of the base model", "full_copy_bytes")]


@dataclass(frozen=True, kw_only=True)
class MemoryPeaks:
    peak_bytes: Annotated[int, about("most bytes resident, of the whole run's process")]
    training_peak_bytes: Annotated[int, about("most bytes resident while training; 0 without training")]
    training_increase_bytes: Annotated[
        int, about("bytes by which training's peak is above the size with the model loaded", "increase_bytes")
    ]
    device_peak_bytes: Annotated[
        int | None, about("most bytes of the accelerator's memory while training; absent on the CPU")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Flops:
    train: Annotated[float | None, about("floating-point operations of the training, estimated", "train_flops")]
    per_token: Annotated[
        float | None, about("floating-point operations of the training a token, estimated", "flops_per_token")
    ]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The model on the validation set at one step of its training."""

    step: Annotated[int, about("optimizer steps done")]
    examples: Annotated[int, about("training examples seen, repeats included")]
    tokens: Annotated[int, about("training tokens seen, without padding")]
    flops: Annotated[float, about("floating-point operations of the training up to here, estimated")]
    train_s: Annotated[float, about("seconds spent in steps up to here, without this scoring")]
    loss: Annotated[float, about("validation loss, nats a labelled token")]
    score: Annotated[float | None, about("the main metric on the first validation examples; null if not taken")]
    kl: Annotated[
        tuple[float, ...] | None,
        about("of each text that the base wrote, KL(base ‖ model), nats a token; if asked for"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The number of every stream of chance."""

    init: Annotated[int, about("of the new parameters' first values", "init_seed")]
    order: Annotated[int, about("of the order of the training examples", "order_seed")]
    dropout: Annotated[int, about("of dropout", "dropout_seed")]
    data: Annotated[int, about("of the draw of the training examples", "data_seed")]


@dataclass(frozen=True, kw_only=True)
class Speed:
    unmerged: Annotated[
        float | None, about("new tokens a second as the model was trained; null of an encoder", "unmerged_tokens_per_s")
    ]
    merged: Annotated[
        float | None,
        about("new tokens a second with the delta merged; null where it has no merged form", "merged_tokens_per_s"),
    ]


@dataclass(frozen=True, kw_only=True)
class Cost:
    switch_s: Annotated[
        float | None, about("seconds to make the task live in a model that holds the base; null without training")
    ]
    generate_tokens_per_s: Annotated[Speed, about("speed of generation")]


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    before: Annotated[float, about("perplexity of held-out general text, of the base", "perplexity_before")]
    after: Annotated[float, about("perplexity of the same text after the training", "perplexity_after")]


@dataclass(frozen=True, kw_only=True)
class OtherTask:
    before: Annotated[float, about("the base's score on the other task, in that task's metric")]
    after: Annotated[float, about("the score after the training")]
    metric: Annotated[str | None, about("name of the other task's metric")] = None
    n_examples: Annotated[int | None, about("test examples of the other task")] = None
    chance: Annotated[
        float | None, about("the score of a guess among each example's choices; absent where there are none")
    ] = None
    each_before: Annotated[
        tuple[float, ...] | None, about("the base's score of each example, for paired intervals; absent in older files")
    ] = None
    each_after: Annotated[tuple[float, ...] | None, about("the same after the training")] = None


@dataclass(frozen=True, kw_only=True)
class Each:
    """A number a probe, for paired intervals."""

    nll_before: Annotated[tuple[float, ...] | None, about("of each text, mean −log p a token by the base, nats")] = None
    nll_after: Annotated[tuple[float, ...] | None, about("the same after the training, nats a token")] = None
    kl: Annotated[
        tuple[float, ...] | None, about("of each text that the base wrote, mean KL(base ‖ tuned), nats a token")
    ] = None
    drift: Annotated[tuple[float, ...] | None, about("of each text, 1 − cosine of an encoder's features")] = None


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What became of one corpus of text."""

    sha256: Annotated[str, about("hash of its texts")]
    text_perplexity: Annotated[Perplexity | None, about("its perplexity; absent of an encoder")] = None
    kl_per_token: Annotated[
        float | None, about("KL(base ‖ tuned) on text that the base wrote after its beginnings, nats a token")
    ] = None
    feature_drift: Annotated[float | None, about("mean 1 − cosine of an encoder's features")] = None
    n_texts: Annotated[int, about("its texts")]
    n_text_tokens: Annotated[int, about("tokens of its texts")]
    n_written: Annotated[int | None, about("texts that the base wrote")] = None
    n_written_tokens: Annotated[int | None, about("tokens that the base wrote")] = None
    each: Annotated[Each, about("a number a text, for paired intervals")] = Each()


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    text_perplexity: Annotated[
        Perplexity | None, about("perplexity of the texts of all corpora together; null of an encoder")
    ]
    kl_per_token: Annotated[
        float | None,
        about("KL(base ‖ tuned) on text that the base wrote, nats a token, the corpora's mean; null of an encoder"),
    ]
    feature_drift: Annotated[float | None, about("mean 1 − cosine of an encoder's features; null of other models")]
    tasks: Annotated[dict[str, OtherTask], about("what became of other tasks, by the task as the run was asked for it")]
    corpora: Annotated[
        dict[str, Corpus] | None,
        about("each corpus by itself, by its entry in the configuration; absent in older files"),
    ] = None
    text: Annotated[
        str | None, about("of older files, which have one corpus: `general`, or a file", "forgetting_text")
    ] = None
    n_texts: Annotated[int | None, about("texts of all corpora")] = None
    n_text_tokens: Annotated[int | None, about("tokens of these texts")] = None
    n_written: Annotated[int | None, about("texts that the base wrote")] = None
    n_written_tokens: Annotated[int | None, about("tokens that the base wrote")] = None
    each: Annotated[Each, about("of older files, which have one corpus: a number a text, for paired intervals")] = (
        Each()
    )
    reason: Annotated[str | None, about("why something was not measured, or null", "forgetting_reason")]

    @property
    def texts(self) -> Each:
        """A number a text, those of all corpora in their order."""
        if self.corpora is None:
            return self.each
        parts = [corpus.each for corpus in self.corpora.values()]

        def joined(name: str) -> tuple[float, ...] | None:
            numbers = [getattr(part, name) for part in parts]
            return None if any(each is None for each in numbers) else tuple(n for each in numbers for n in each)

        return Each(**{each.name: joined(each.name) for each in fields(Each)})


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of the weight matrices of one kind of site: means over those that were changed."""

    n_weights: Annotated[int, about("matrices that were changed", "changed_weights")]
    norm: Annotated[float, about("norm of ΔW over that of W, Frobenius's", "delta_norm")]
    rank: Annotated[float, about("numerical rank of ΔW", "delta_rank")]
    stable_rank: Annotated[float, about("Σσ² / σ₁² of ΔW", "delta_stable_rank")]
    effective_rank: Annotated[float, about("exp of the entropy of ΔW's singular values", "delta_effective_rank")]
    intruders: Annotated[
        float, about("leading singular vectors of W + ΔW that are like none of W's, a matrix", "intruders")
    ]


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """What the training has done to the weights."""

    top: Annotated[int, about("leading singular vectors that were looked at for intruders", "")]
    cosine: Annotated[float, about("the cosine to every vector of W below which one is an intruder", "")]
    sites: Annotated[dict[str, Change], about("by the kind of site")]
    all: Annotated[Change | None, about("over all kinds; null where no matrix was changed")]
    reason: Annotated[str | None, about("what of the change is not in the numbers, or null", "spectra_reason")]


@dataclass(frozen=True, kw_only=True)
class ReplaySource:
    kind: Annotated[str, about("what its examples are")]
    sha256: Annotated[str, about("hash of its examples")]
    n_examples: Annotated[int, about("examples that it has")]
    n_drawn: Annotated[int, about("how often one of them was trained on")]


@dataclass(frozen=True, kw_only=True)
class Replayed:
    share: Annotated[float, about("share of the training that was replayed", "replay_share")]
    n_task: Annotated[int, about("how often an example of the task was trained on", "replay_n_task")]
    sources: Annotated[dict[str, ReplaySource], about("what was replayed, by its entry in data.replay_from")]


@dataclass(frozen=True, kw_only=True)
class Data:
    sha256: Annotated[str, about("hash of every example", "data_sha256")]
    test_sha256: Annotated[
        str | None, about("hash of the validation and test examples alone; absent in older files")
    ] = None
    sources: Annotated[dict[str, str], about("version or hash of every source, by its name")]
    n_train: Annotated[int, about("training examples")]
    n_pool: Annotated[
        int | None,
        about("examples that the training's were drawn from; n_train: there was no choice; absent: not drawn"),
    ] = None
    n_val: Annotated[int, about("validation examples")]
    n_test: Annotated[int, about("test examples of the data, scored or not", "n_test_in_data")]
    n_left_out: Annotated[
        int | None,
        about("records that cannot be used, which data.check=warn went on without; absent where a run stops for one"),
    ] = None
    n_truncated: Annotated[int, about("examples of which a part did not fit")]
    n_turns_cut: Annotated[int | None, about("turns of chats that did not fit; absent in older files")] = None
    n_sentences_cut: Annotated[int | None, about("sentences that did not fit; absent in older files")] = None
    checks: Annotated[dict[str, int], about("findings of the data's check, by kind; empty where nobody looked")]
    replay: Annotated[Replayed | None, about("what was trained on beside the task's own; null without replay")]


def _phase(description: str) -> Meta:
    return about(f"seconds {description}", "")


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Wall time by phase; every second of a run is in exactly one of them."""

    start: Annotated[float | None, _phase("of the interpreter and its imports; absent in older files")] = None
    data: Annotated[float, _phase("of loading, checking and encoding the examples")]
    load: Annotated[float, _phase("of loading the model")]
    inject: Annotated[float, _phase("of putting the method's parameters in")]
    forward: Annotated[float, _phase("of training, in the forward pass")]
    backward: Annotated[float, _phase("of training, in the backward pass")]
    optimizer: Annotated[float, _phase("of training, in the optimizer")]
    checkpoint: Annotated[float, _phase("of writing and reading checkpoints")]
    save: Annotated[float, _phase("of writing what was trained and the run's other files")]
    evaluate: Annotated[float, _phase("of answering and scoring")]
    forgetting: Annotated[float, _phase("of the probes of forgetting")]
    cost: Annotated[float, _phase("of measuring what the trained model costs to use")]
    other: Annotated[float, _phase("that belong to no other phase")]
    total: Annotated[float, about("wall time of the whole run, seconds; the sum of its phases", "total_s")]

    def phases(self) -> dict[str, float]:
        """By phase, without the total."""
        return {name: each for name, each in vars(self).items() if name != "total" and each is not None}


Kind = Literal["error", "nan", "oom", "killed"]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a result says of its run, whether it came to its end or not."""

    format: Annotated[int, about("the version of this format")] = FORMAT
    status: Annotated[Literal["complete", "failed"], about("`complete` or `failed`")]
    error: Annotated[str | None, about("why the run failed; null of a complete one", "")]
    failure_kind: Annotated[Kind | None, about("`error`, `nan`, `oom` or `killed`; null of a complete run")]
    config: Annotated[dict[str, Any], about("the run's whole configuration", "config")]
    key: Annotated[str, about("hash of the configuration, of its files, and of the sources")]
    sources_sha256: Annotated[
        str | None, about("hash of the sources that can change the numbers; absent in older files")
    ] = None
    method: Annotated[str, about("name of the method")]
    model: Annotated[str, about("name of the model")]
    task: Annotated[str, about("name of the task")]
    seed: Annotated[int, about("the run's seed")]
    lr: Annotated[float | None, about("learning rate; null of the untrained model")]
    steps: Annotated[int, about("optimizer steps; 0 of the untrained model")]
    batch_size: Annotated[int, about("examples a step")]
    environment: Annotated[Environment, about("machine, versions, commit", "environment")]
    file: Path | None = None  # where it was read; no key of the file

    @property
    def failure(self) -> str | None:
        """Why the run failed; None of a complete one."""
        return self.error

    @property
    def split(self) -> str:
        """The examples that quality and scores are of: `test`, or `validation` in a search for learning rates."""
        return "validation" if self.config.get("eval", {}).get("part") == "val" else "test"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Every number of a complete run."""

    metric: Annotated[str, about("the task's main metric; higher is better")]
    ceiling: Annotated[float | None, about("the most that the main metric can be; absent where nothing bounds it")] = (
        None
    )
    quality: Annotated[dict[str, float], about("by metric, over the examples of the split")]
    quality_by_part: Annotated[
        dict[str, dict[str, float]], about("by part (language, category and the like), then by metric")
    ]
    scores: Annotated[tuple[float, ...], about("the main metric's number for each example, in their order")]
    groups: Annotated[
        tuple[str, ...] | None,
        about("the template, entity or the like that each scored example comes from; absent in older files"),
    ] = None
    validation: Annotated[dict[str, float], about("by metric, over the validation examples, and their `loss`")]
    loss: Annotated[Loss, about("losses")]
    n_test: Annotated[int, about("examples of the split that were scored")]
    parameters: Annotated[Parameters, about("numbers of parameters")]
    bytes: Annotated[Bytes, about("sizes on disk")]
    memory: Annotated[MemoryPeaks, about("peaks of memory")]
    tokens_per_s: Annotated[float, about("tokens a second of training; 0 without training")]
    step_s: Annotated[float, about("seconds of the median training step; 0 without training")]
    flops: Annotated[Flops, about("floating-point operations")]
    curve: Annotated[
        tuple[Point, ...] | None, about("the validation set along the training; absent where nobody asked for it")
    ] = None
    seeds: Annotated[Seeds | None, about("the seed of every stream of chance; absent in older files")] = None
    cost: Annotated[Cost, about("what the trained model costs to use")]
    forgetting: Annotated[Forgetting | None, about("what training did to what the base could do; null if not measured")]
    data: Annotated[Data, about("what was trained and scored on", "data")]
    spectra: Annotated[
        Spectra | None, about("what training did to the weights; absent unless it was asked for (`eval.spectra`)")
    ] = None
    base: Annotated[str, about("where the model's weights came from")]
    base_commit: Annotated[
        str | None, about("the commit of the hub that they were read at; absent where they lie in files")
    ] = None
    seconds: Annotated[Seconds, about("wall time by phase")]

    def __post_init__(self) -> None:
        if self.metric not in self.quality:
            raise ValueError(f"key 'quality' has no {self.metric!r}, which key 'metric' names")

    @property
    def score(self) -> float:
        """The main metric's value over the examples of the split."""
        return self.quality[self.metric]

    @property
    def untrained(self) -> bool:
        """Whether this is the model as it was, method `none`."""
        return self.parameters.trainable == 0

    @property
    def train_s(self) -> float:
        """Seconds of training itself: forward, backward and optimizer."""
        return sum(getattr(self.seconds, phase) for phase in TRAINING)


@dataclass(frozen=True, kw_only=True)
class Complete(Measured, Header):
    """The result of a run that came to its end."""


@dataclass(frozen=True, kw_only=True)
class Failed(Header):
    """The result of a run that did not; whatever was measured of it is not read."""

    @property
    def failure(self) -> str:
        return self.error or "failed without a message"


Result = Complete | Failed


def plain(result: Any) -> Any:
    """The result, or a part of it, as what stands in the file: dictionaries, lists, text and numbers."""
    if is_dataclass(result):
        pairs = ((each, getattr(result, each.name)) for each in fields(result) if each.name != "file")
        return {each.name: plain(value) for each, value in pairs if value is not None or each.default is not None}
    if isinstance(result, dict):
        return {name: plain(value) for name, value in result.items()}
    return [plain(value) for value in result] if isinstance(result, (list, tuple)) else result
