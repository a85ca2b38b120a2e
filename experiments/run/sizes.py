"""Whether rows fit the model's tables, found before anything is trained: on a GPU an id outside ends the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from experiments.config.family import Family
from experiments.config.schema import Config
from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.data.template import name_of
from experiments.evaluation.forgetting import TEXT_TOKENS
from experiments.models.positions import positions_of, word_table
from experiments.objectives.base import Objective


def check_sizes(config: Config, reader: Reader, objective: Objective, rows: Mapping[str, Sequence[Encoded]]) -> None:
    """Raise ValueError where an id, a token type, a class or a length is outside the model, naming its key."""
    check_ids(config, reader, objective, rows)
    if (positions := positions_of(reader.model)) is None:
        return
    every = [row for part in rows.values() for row in part]
    longest = max(max(len(row.prompt), len(row.response)) if apart(reader) else row.n_tokens for row in every)
    has = f"model={config.model.name} has {positions.n} positions"
    if longest > positions.n:
        raise ValueError(
            f"optim.max_length={config.optim.max_length}: an example has {longest} tokens, and {has}; lower "
            f"optim.max_length to {positions.n} or less"
        )
    if not positions.fixed:
        return
    if objective.writes:
        asked = [row for part, of_part in rows.items() if part != "train" for row in of_part]
        before = 1 if apart(reader) else max(len(row.prompt) for row in asked)
        if before + config.eval.max_new_tokens > positions.n:
            raise ValueError(
                f"eval.max_new_tokens={config.eval.max_new_tokens}: after a prompt of {before} tokens an answer may "
                f"pass the last place, and {has}; lower it, or lower optim.max_length"
            )
    if config.forgetting.enabled and positions.n < TEXT_TOKENS + len(objective.encoder.front):
        raise ValueError(
            f"forgetting.enabled=true: its texts have up to {TEXT_TOKENS} tokens, and {has}; say "
            "forgetting.enabled=false"
        )


def check_ids(config: Config, reader: Reader, objective: Objective, rows: Mapping[str, Sequence[Encoded]]) -> None:
    """Raise ValueError for an id that is in no table of the model."""
    encoder, model = objective.encoder, cast(Any, reader.model)
    n_front, name = len(encoder.front), name_of(encoder.tokenizer)
    n_read, n_said = table_size(word_table(model)), table_size(model.get_output_embeddings())
    types, classes = getattr(model.config, "type_vocab_size", 0) or None, len(objective.labels) or None
    if n_read is not None and not 0 <= encoder.pad < n_read:
        raise ValueError(
            f"pad_token_id={encoder.pad} of the tokenizer at {name} is outside the model's table of {n_read} tokens; "
            "name another pad_token in its tokenizer_config.json"
        )
    for part, of_part in rows.items():
        for i, row in enumerate(of_part):
            said = [*row.response, *(id for option in row.options for id in option.ids)]
            places = {
                "vocab_size": (n_read, [*row.prompt[n_front:], *said]),
                "vocab_size of the output": (n_said, said),
                "type_vocab_size": (types, row.segments or ()),
                "num_labels": (classes, () if row.label is None else [int(row.label)]),
            }
            for key, (n, ids) in places.items():
                if n is not None and ids and not 0 <= min(ids) <= max(ids) < n:
                    odd = next(id for id in ids if not 0 <= id < n)
                    raise ValueError(
                        f"{key}={n}: {part}#{i} has the id {odd}, which is outside; model={config.model.name} and its "
                        f"tokenizer at {name} do not fit together: resize the model's embeddings and save it, or take "
                        "the tokenizer that it came with"
                    )


def table_size(table: Any) -> int | None:
    """The rows of an embedding, or the outputs of a head; None where it is no plain table."""
    return table.weight.shape[0] if isinstance(getattr(table, "weight", None), Tensor) else None


def apart(reader: Reader) -> bool:
    """Whether prompt and answer stand in rows of their own."""
    return reader.family is Family.encoder_decoder
