"""What is wrong with records or a model is said before the training, with its place; what may go on goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.config.identity import key
from experiments.config.schema import check
from experiments.data.findings import DataError
from experiments.data.template import ModelFault
from experiments.evaluation.predictions import write_predictions
from experiments.models.tokenizer import CHATML, byte_tokenizer
from experiments.tasks.base import Example, Scores, TaskError
from experiments.tasks.forms import Named
from experiments.tasks.jsonl import records
from tests.support.runs import ROOT, config, overrides, own_cache_and_torch_settings, run, words  # noqa: F401

QUICK = ("optim.steps=2", "forgetting.enabled=false")


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


def chats(n: int = 40, **last: Any) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": "How many"}, {"role": "assistant", "content": "One"}]
    return [
        {"messages": [{**turns[0], "content": f"How many of {i}?"}, {**turns[1], "content": f"{i % 7}", **last}]}
        for i in range(n)
    ]


def turn(**fields: Any) -> dict[str, Any]:
    """A record whose first turn of the assistant has these fields."""
    first, asked = {"role": "user", "content": "Hi"}, {"role": "user", "content": "And?"}
    said = {"role": "assistant", "content": "So"}
    return {"messages": [first, {**said, **fields}, asked, said]}


CALL = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
REFUSED = {
    "tool calls": (turn(tool_calls=CALL), "does not show 'tool_calls' of turn 2"),
    "a thought": (turn(reasoning_content="Hm"), "does not show 'reasoning_content' of turn 2"),
    "a name": (turn(name="Ann"), "does not show 'name' of turn 2"),
    "tools": ({**turn(), "tools": CALL}, "does not show 'tools' of the record"),
    "documents": ({**turn(), "documents": [{"text": "a"}]}, "does not show 'documents' of the record"),
    "a call to learn": (chats(1, tool_calls=CALL)[0], "'tool_calls' of the last turn cannot be learned"),
    "a thought to learn": (
        chats(1, reasoning_content="Hm")[0],
        "'reasoning_content' of the last turn cannot be",
    ),
    "nothing to learn": (chats(1, weight=0)[0], "the last turn has weight 0"),
    "half a weight": (turn(weight=0.5), "'weight' of turn 2 must be 0 or 1, not 0.5"),
    "a record's weight": ({**turn(), "weight": 0}, "field 'weight', 0: a record has none"),
    "a record's system": ({**turn(), "system": "Be kind."}, "field 'system' is not read in messages records"),
    "a record's functions": ({**turn(), "functions": CALL}, "field 'functions' is not read in messages records"),
    "a record's images": ({**turn(), "images": ["a.png"]}, "field 'images' is not read in messages records"),
    "a key twice": ('{"messages": [], "messages": [1]}', "key 'messages' stands twice"),
    "a key twice inside": (
        json.dumps(turn()).replace('{"role"', '{"role": "user", "role"', 1),
        "'role' stands twice",
    ),
    "half a character": (json.dumps(turn()).replace("And?", "\\ud83d"), r"half of a character|lone_surrogate"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["run", "check"])
def test_what_would_be_dropped_is_refused_with_its_line(tmp_path: Path, case: str, command: str, capsys: Any) -> None:
    from experiments.data.__main__ import main

    record, message = REFUSED[case]
    file = lines(tmp_path / "a.jsonl", *chats(), record)
    given = overrides(tmp_path, *QUICK, file=file)
    if command == "run":
        with pytest.raises((TaskError, DataError), match=rf"(?s)a\.jsonl:41: .*({message})"):
            run(config(*given))
        return
    what = [word for word in given if word.startswith(("model=", "task"))]
    assert main(["check", *what]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "a.jsonl:41: " in out and re.search(message, out)


def test_with_a_warning_a_run_goes_on_without_what_it_cannot_use(tmp_path: Path, capsys: Any) -> None:
    broken = ["{", '{"prompt": "a", "prompt": "b", "completion": "c"}', '{"prompt": "x"}']
    long = {"prompt": "How long?", "completion": "x" * 600}
    half = {"prompt": "Half?", "completion": "\ud83d"}
    records = [json.loads(line) for line in words(tmp_path / "words.jsonl").read_text().splitlines()]
    file = lines(tmp_path / "a.jsonl", *records, *broken, long, half, {"text": "another form"})
    given = overrides(tmp_path, *QUICK, file=file)
    with pytest.raises(TaskError, match=r"a\.jsonl:41: not a JSON value"):
        run(config(*given))
    result = run(config(*given, "data.check=warn"))
    assert result["data"]["n_left_out"] == 6
    assert result["data"]["checks"]["broken_line"] == 4 and result["data"]["checks"]["does_not_fit"] == 2
    assert result["data"]["n_train"] + result["data"]["n_val"] + result["data"]["n_test"] == 40
    assert "2 examples are left out" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["text", "label"])
def test_a_label_that_only_the_test_has_does_not_stop_a_run_that_may_go_on(tmp_path: Path, how: str) -> None:
    train = lines(tmp_path / "a.jsonl", *({"text": f"text {i}", "label": "ab"[i % 2]} for i in range(20)))
    test = lines(tmp_path / "b.jsonl", *({"text": f"other {i}", "label": "abc"[i % 3]} for i in range(9)))
    model = "tiny" if how == "text" else "tiny_encoder"
    given = overrides(tmp_path, *QUICK, f"model={model}", f"task.test={test}", file=train)
    given = [word for word in given if not word.startswith("task.n_test")]
    with pytest.raises(DataError, match=r"b\.jsonl:3: label 'c' does not occur in train"):
        run(config(*given))
    result = run(config(*given, "data.check=warn"))
    assert result["data"]["n_left_out"] == (0 if how == "text" else 3)


def test_one_class_is_warned_of(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", *({"text": f"text {i}", "label": "a"} for i in range(40)))
    result = run(config(*overrides(tmp_path, *QUICK, "data.near_duplicates=false", file=file)))
    assert result["data"]["checks"]["one_class"] == 1


def own_model(folder: Path, kind: str = "Llama", template: str | None = CHATML, **sizes: Any) -> Path:
    import transformers

    tokenizer = byte_tokenizer()
    given = {"vocab_size": 259, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    given |= {"num_attention_heads": 2, "pad_token_id": 0, "max_position_embeddings": 300, **sizes}
    made = getattr(transformers, f"{kind}Config")(**given)
    name = {"Llama": "LlamaForCausalLM", "GPT2": "GPT2LMHeadModel", "Roberta": "RobertaModel"}[kind]
    getattr(transformers, name)(made).save_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def with_model(tmp_path: Path, folder: Path, *more: str, file: Path | None = None) -> Any:
    return config(*overrides(tmp_path, *QUICK, "model=hf", f"model.path={folder}", *more, file=file))


SIZES = {
    "places": ("Llama", {"max_position_embeddings": 30}, (), r"optim\.max_length=512: an example has \d+ tokens, and"),
    "places of a table": (
        "GPT2",
        {"max_position_embeddings": 30},
        (),
        r"optim\.max_length=512: an example has \d+ tokens, and",
    ),
    "places of an answer": (
        "GPT2",
        {"max_position_embeddings": 60},
        ("eval.max_new_tokens=60",),
        "eval.max_new_tokens=60: after",
    ),
    "words": ("Llama", {"vocab_size": 100}, (), r"vocab_size=100: train#0 has the id \d+, which is outside"),
    "padding": (
        "Llama",
        {"vocab_size": 259},
        (),
        r"pad_token_id=259 of the tokenizer at .* is outside",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_what_is_outside_the_model_is_refused_before_the_training(tmp_path: Path, case: str) -> None:
    kind, sizes, more, message = SIZES[case]
    folder = own_model(tmp_path / "model", kind, **sizes)
    if case == "padding":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
        tokenizer.save_pretrained(folder)
    file = words(tmp_path / "words.jsonl")
    if case.startswith("places"):
        file = lines(tmp_path / "w.jsonl", *({"prompt": f"{i}" * 15, "completion": f"{i} " * 5} for i in range(40)))
    with pytest.raises(ValueError, match=message):
        run(with_model(tmp_path, folder, *more, file=file))
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_table_whose_first_rows_are_no_places(tmp_path: Path) -> None:
    folder = own_model(tmp_path / "model", "Roberta", max_position_embeddings=42, pad_token_id=1)
    rows = [{"text": "x" * (40 + i % 2) + "ab"[i % 2], "label": "ab"[i % 2]} for i in range(2)]
    file = lines(
        tmp_path / "a.jsonl", *({**rows[i % 2], "text": f"{i:02}{rows[i % 2]['text'][2:]}"} for i in range(40))
    )
    fits = ("data.near_duplicates=false", "optim.max_length=40")
    run(with_model(tmp_path, folder, *fits, file=file))
    with pytest.raises(ValueError, match=r"optim\.max_length=41: an example has 41 tokens, and .* has 40 positions"):
        run(with_model(tmp_path, folder, "data.near_duplicates=false", "optim.max_length=41", file=file))


def test_a_models_fault_is_said_once_and_as_its_own(tmp_path: Path, capsys: Any) -> None:
    from experiments.data.__main__ import main

    folder, file = own_model(tmp_path / "model", template=None), lines(tmp_path / "a.jsonl", *chats())
    with pytest.raises(ModelFault, match=r"the model at .*model has no chat template"):
        run(with_model(tmp_path, folder, file=file))
    assert main(["check", str(file), "model=hf", f"model.path={folder}"]) == 2
    assert capsys.readouterr().err.count("has no chat template") == 1


def test_a_file_is_one_run_however_its_path_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, model = words(tmp_path / "words.jsonl"), own_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    spelled = [str(file), "words.jsonl", "./words.jsonl", f"../{tmp_path.name}/words.jsonl"]
    made = {key(with_model(tmp_path, Path(one), file=Path(name))) for name in spelled for one in (model, "model")}
    assert len(made) == 1
    replayed = {key(config(*overrides(tmp_path, "data.replay=0.5", f"data.replay_from=[{name}]"))) for name in spelled}
    probed = {key(config(*overrides(tmp_path, f"forgetting.tasks=['jsonl task.train={name}']"))) for name in spelled}
    assert len(replayed) == len(probed) == 1
    other = lines(tmp_path / "other.jsonl", *({"prompt": f"{i}", "completion": "c"} for i in range(40)))
    assert key(config(*overrides(tmp_path, file=other))) != key(config(*overrides(tmp_path)))


@pytest.mark.parametrize("name", ["seed", "task.seed", "seeds.init", "seeds.data"])
def test_a_seed_below_zero_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=-1: a seed must not be below 0"):
        check(config(*overrides(tmp_path, f"{name}=-1")))


MESSAGES = {
    '{"question": "a", "answer": "b"}': r":1: .*'question', 'answer': call 'question' 'prompt', 'answer' 'completion'",
    '[{"prompt": "a", "completion": "b"}]': r": a JSON array, and records stand in JSON Lines",
    '[\n{"prompt": "a", "completion": "b"}\n]': r": a JSON array, and records stand in JSON Lines",
    '[{"prompt": "a"},\n {"prompt": "b"}]': r": a JSON array, and records stand in JSON Lines",
    '{\n"prompt": "a",\n"completion": "b"}': r": one JSON object over several lines",
    '{"id": 3}': r":1: no known record form in the fields 'id'; there are",
    '{"sentence": "a", "label": "b"}': r":1: .*call 'sentence' 'text'",
    '{"conversations": []}': r":1: .*call 'conversations' 'messages'",
}


@pytest.mark.parametrize("text", MESSAGES)
def test_what_is_no_record_is_told_apart(tmp_path: Path, text: str) -> None:
    from experiments.tasks.jsonl import records

    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(TaskError, match=r"a\.jsonl" + MESSAGES[text]):
        records(tmp_path / "a.jsonl")


@pytest.mark.parametrize("closed", [False, True])
def test_output_ends_no_run(tmp_path: Path, closed: bool) -> None:
    """An ASCII terminal that lacks a letter of the data, and a pipe whose reader has gone."""
    records = [{"prompt": f"{i} π → ü?", "completion": f"é{i % 3}"} for i in range(40)]
    file = lines(tmp_path / "letters.jsonl", *records)
    command = [sys.executable, "-m", "experiments.run", *overrides(tmp_path, *QUICK, "threads=1", file=file)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    if closed:
        process.stdout.close()
        process.stderr.close()
    else:
        process.communicate()
    assert process.wait() == 0
    assert len(list((tmp_path / "runs").rglob("result.json"))) == 1


def test_fields_that_only_turns_have_are_refused_elsewhere(tmp_path: Path) -> None:
    plain = {"prompt": "Hi", "completion": "So"}
    for field, value in {"tools": CALL, "history": [["a", "b"]], "system": "Be kind."}.items():
        with pytest.raises(TaskError, match=rf"a\.jsonl:1: field '{field}' is not read in prompt/completion records"):
            records(lines(tmp_path / "a.jsonl", {**plain, field: value}))
    assert records(lines(tmp_path / "b.jsonl", {**plain, "tools": [], "system": ""}))[0] == "prompt/completion"
    assert records(lines(tmp_path / "c.jsonl", {"text": "a", "label": "b", "system": "linux"}))[0] == "text/label"


def test_turns_before_a_preference_are_its_prompt(tmp_path: Path) -> None:
    asked = {"messages": turn()["messages"][:3], "chosen": "Yes", "rejected": "No"}
    form, (example,) = records(lines(tmp_path / "a.jsonl", asked))
    assert form == "preference" and len(example.messages) == 3 and example.choices == ("No", "Yes")


@pytest.mark.parametrize("whole", [[{"prompt": "a", "completion": "b"}], {"prompt": "a", "completion": "b"}])
def test_what_is_advised_for_a_file_that_is_no_json_lines_leaves_it_there(tmp_path: Path, whole: Any) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(whole, indent=1))
    with pytest.raises(TaskError, match=r"`jq -c .* a\.jsonl > a\.records\.jsonl` writes them so"):
        records(file)


@pytest.mark.parametrize(
    "given",
    ["task.n_val=-1", "task.n_train=-3", "task.n_test=-1", "model.today=soon", "model.today=2026-13-01"],
)
def test_values_that_make_no_sense_are_refused_by_their_keys(tmp_path: Path, given: str, capsys: Any) -> None:
    from experiments.data.__main__ import main

    with pytest.raises(ValueError, match=given):
        check(config(*overrides(tmp_path, given)))
    assert main(["check", "task=jsonl", f"task.train={words(tmp_path / 'words.jsonl')}", given]) == 2
    assert given in capsys.readouterr().err


def test_half_of_a_character_never_ends_a_run_that_was_trained(tmp_path: Path) -> None:
    record = {"prompt": "Hi", "completion": "So", "language": "\ud83d"}
    with pytest.raises(TaskError, match=r"a\.jsonl:1: task\.part=language: half of a character"):
        records(lines(tmp_path / "a.jsonl", record), Named(part="language"))
    example = Example(text="Hi", completion="\ud83d")
    write_predictions(tmp_path / "predictions.jsonl", [example], ["So"], Scores([0.5], {}))
    (line,) = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert json.loads(line)["gold"] == "\ud83d"


def test_a_model_whose_places_are_all_taken_is_trained_and_measured(tmp_path: Path) -> None:
    import transformers as hf

    place = tmp_path / "model"
    sizes = hf.GPT2Config(vocab_size=320, n_embd=16, n_layer=1, n_head=2, n_positions=24, eos_token_id=2)
    hf.GPT2LMHeadModel(sizes).save_pretrained(place)
    byte_tokenizer().save_pretrained(place)
    given = ("model=hf", f"model.path={place}", "model.dtype=fp32", "optim.max_length=24", *QUICK)
    assert run(config(*overrides(tmp_path, *given)))["cost"]["generate_tokens_per_s"]["unmerged"] > 0
