"""The probes of forgetting: right on models of a few thousand parameters, kept in the cache, the same in every run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForSequenceClassification

import deltatune as dt
from experiments.config.schema import Config
from experiments.data.sources import BUNDLED
from experiments.evaluation import corpora, forgetting, probes
from experiments.evaluation.probes import Written
from experiments.tasks.base import TaskError
from tests.support.runs import (
    classes,
    config,
    directory,
    overrides,
    own_cache_and_torch_settings,  # noqa: F401 - a fixture
    run,
    words,
)
from tests.support.small import VOCABULARY, llama, reader
from tests.support.tolerance import agree, bound, reduction

TEXTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [9, 8, 7], [20, 21, 22, 23, 24]]


def probed(tmp_path: Path, *more: str) -> dict[str, Any]:
    """What a run's result says about forgetting."""
    given = overrides(tmp_path, *more, file=words(tmp_path / "words.jsonl"))
    return run(config(*given))["forgetting"]


# ---------------------------------------------------------------- the probes


def test_text_nll_is_the_sum_over_all_tokens_after_the_first():
    model = llama().eval()
    found = probes.text_nll(reader(model), TEXTS)
    for text, nll in zip(TEXTS, found, strict=True):
        ids = torch.tensor([text])
        expected = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        assert nll == pytest.approx(expected.item(), rel=bound(torch.float32, reduction(model)))


def test_kl_is_the_definition_and_zero_for_the_same():
    torch.manual_seed(0)
    base, tuned = torch.randn(7, 11), torch.randn(7, 11)
    p, q = base.double().softmax(-1), tuned.double().softmax(-1)
    true = (p * (p / q).log()).sum().item()
    assert probes.kl_sum(base, tuned) == pytest.approx(true, rel=bound(torch.float32, 7 * 11))
    assert probes.kl_sum(base, base) == 0.0


def test_the_base_writes_texts_of_a_set_length_the_same_each_time():
    model = llama().eval()
    texts = probes.continuations(reader(model), TEXTS)
    assert [text.prompt for text in texts] == [text[: probes.PROMPT_TOKENS] for text in TEXTS]
    assert {len(text.own) for text in texts} == {probes.WRITTEN_TOKENS}
    assert probes.continuations(reader(model), TEXTS) == texts
    assert len({tuple(text.own) for text in texts}) == 3


def test_logits_are_those_that_chose_the_own_tokens():
    model, text = llama().eval(), Written([5, 6, 7], [8, 9])
    (found,) = probes.logits_of(reader(model), [text])
    expected = model(torch.tensor([[5, 6, 7, 8, 9]])).logits[0, 2:4]
    agree(found, expected, reduction(model))


def test_a_trained_prompt_stands_before_the_texts():
    model = llama()
    dt.inject(model, dt.Prompt.on(length=3), name="run")
    front = tuple(dt.prompt_ids(model, "run"))
    (found,) = probes.logits_of(reader(model.eval(), front), [Written([5, 6], [7, 8])])
    assert found.shape[0] == 2
    expected = model(torch.tensor([[*front, 5, 6, 7, 8]])).logits[0, 4:6]
    agree(found, expected, reduction(model))


def bert(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    return BertForSequenceClassification(BertConfig(**sizes, num_attention_heads=2, num_labels=3)).eval()


def test_drift_of_an_encoders_features():
    one, other = (probes.features(reader(bert(seed)), TEXTS) for seed in (0, 1))
    assert one.shape == (3, 16)
    assert probes.drift(one, one) == pytest.approx([0, 0, 0], abs=1e-6)
    assert all(0.01 < d <= 2 for d in probes.drift(one, other))


# ---------------------------------------------------------------- before and after


def test_an_untrained_model_has_forgotten_nothing(tmp_path):
    found = probed(tmp_path, "method=none")
    assert found["kl_per_token"] == 0.0
    assert found["text_perplexity"]["before"] == found["text_perplexity"]["after"]
    assert (found["n_texts"], found["n_written"], found["n_written_tokens"]) == (3, 2, 2 * probes.WRITTEN_TOKENS)


@pytest.mark.parametrize("method", ["lora", "full", "prompt", "bitfit"])
def test_training_moves_the_model_away_from_its_base(tmp_path, method):
    """Full fine-tuning too, whose base is gone by then: its logits are in the cache."""
    found = probed(tmp_path, f"method={method}", "optim.steps=8")
    each = found["corpora"]["prose"]["each"]
    assert found["kl_per_token"] == pytest.approx(sum(each["kl"]) / 2) and found["kl_per_token"] > 1e-6
    assert found["text_perplexity"]["before"] != found["text_perplexity"]["after"]
    assert len(each["nll_before"]) == len(each["nll_after"]) == 3
    perplexity = found["text_perplexity"]["after"]
    assert min(each["nll_after"]) <= math.log(perplexity) <= max(each["nll_after"])


def test_the_bases_figures_are_taken_once(tmp_path, monkeypatch):
    first = probed(tmp_path, "method=lora")
    calls = []
    taken = probes.text_nll
    monkeypatch.setattr(probes, "text_nll", lambda *given: calls.append(1) or taken(*given))
    monkeypatch.setattr(probes, "continuations", None)
    second = probed(tmp_path, "method=lora", "seed=1")
    assert len(calls) == 1  # the one after the training
    assert second["text_perplexity"]["before"] == first["text_perplexity"]["before"]


def test_probing_draws_nothing_from_the_run(tmp_path):
    """The same bits with probes, without, and where the base's figures came from the cache."""
    found = []
    for change in ("forgetting.n_text=3", "forgetting.n_text=2", "forgetting.enabled=false"):
        made = config(*overrides(tmp_path, "method=lora", change, "+method.rules.0.hparams.dropout=0.1"))
        result = run(made)
        found.append((result["validation"], (directory(made) / "delta.safetensors").read_bytes()))
        assert (result["forgetting"] is None) == (change == "forgetting.enabled=false")
    assert found[0] == found[1] == found[2]


def test_other_tasks_are_scored_before_and_after(tmp_path):
    other = tmp_path / "other.jsonl"
    records = [{"prompt": f"{i} a", "completion": "b"} for i in range(12)]
    other.write_text("".join(json.dumps(r) + "\n" for r in records))
    entry = f"jsonl task.train={other} task.n_val=2 task.n_test=4"
    made = overrides(tmp_path, "method=lora", f"forgetting.tasks=['{entry}']", "forgetting.n_examples=3")
    result = run(config(*made))
    assert result["forgetting"]["tasks"] == {
        entry: {
            "before": 0.0,
            "after": 0.0,
            "metric": "exact_match",
            "n_examples": 3,
            "each_before": [0.0] * 3,
            "each_after": [0.0] * 3,
        }
    }


def test_the_runs_own_task_is_not_scored_twice(tmp_path, monkeypatch):
    file = words(tmp_path / "words.jsonl")
    entry = f"jsonl task.train={file} task.n_val=5 task.n_test=6"
    made = config(*overrides(tmp_path, f"forgetting.tasks=['{entry}']", file=file))
    run(config(*overrides(tmp_path, "seed=3", f"forgetting.tasks=['{entry}']", file=file)))  # the base's figures
    monkeypatch.setattr(forgetting, "scored", None)
    result = run(made)
    own = result["forgetting"]["tasks"][entry]
    assert own["after"] == result["quality"]["exact_match"]


def test_a_delta_that_is_switched_off_has_forgotten_nothing():
    """To the bit, whatever was trained; after full fine-tuning there is no such switch."""
    model = llama()
    texts = probes.continuations(reader(model.eval()), TEXTS)
    base = list(probes.logits_of(reader(model), texts))
    dt.inject(model, dt.LoRA.on(), name="run")
    with torch.no_grad():
        for _, p in dt.parameters(model, "run"):
            p.normal_()
    tuned = list(probes.logits_of(reader(model), texts))
    assert all(probes.kl_sum(one, other) > 0.1 for one, other in zip(base, tuned))
    dt.use(model)
    off = list(probes.logits_of(reader(model), texts))
    assert all(torch.equal(one, other) and probes.kl_sum(one, other) == 0 for one, other in zip(base, off))


def test_an_encoder_has_its_features_drift_and_the_reason(tmp_path):
    data = classes(tmp_path / "classes.jsonl")
    made = config(*overrides(tmp_path, "model=tiny_encoder", "method=lora", "optim.steps=6", file=data))
    result = run(made)["forgetting"]
    assert result["feature_drift"] > 0
    assert (result["text_perplexity"], result["kl_per_token"], result["tasks"]) == (None, None, {})
    assert "writes no text" in result["reason"] and "no forgetting" in result["reason"]
    own = result["corpora"]["prose"]
    assert own["feature_drift"] == pytest.approx(sum(own["each"]["drift"]) / 3) and "kl_per_token" not in own


# ---------------------------------------------------------------- texts


def corpus(file: Path, *texts: str) -> Path:
    file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
    return file


def wanting(file: Path) -> Config:
    return config("model=tiny", f"forgetting.texts=[{file}]", "forgetting.n_text=2", "forgetting.n_kl=1")


def test_a_file_of_texts(tmp_path):
    file = corpus(tmp_path / "texts.jsonl", "one", "tw\u2028o", "three")  # a line end to Unicode, not to JSON
    assert [example.text for example in corpora.texts(str(file), 2)] == ["one", "tw\u2028o"]
    result = probed(tmp_path, "method=none", f"forgetting.texts=[{file}]", "forgetting.n_text=3")
    assert (result["n_texts"], result["n_text_tokens"], list(result["corpora"])) == (3, 2 + 5 + 4, [str(file)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 3}', ":2: .*'text'"),
        ('{"words": "a"}', ":2: .*'text'"),
        ("{", ":2: not a JSON value"),
        ("", "two tokens"),
    ],
)
def test_a_file_that_has_no_texts_is_refused_by_line(tmp_path, line, message):
    file = tmp_path / "texts.jsonl"
    file.write_text(f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(TaskError, match=message):
        probed(tmp_path, f"forgetting.texts=[{file}]")


def test_each_corpus_is_reported_by_itself_and_all_together(tmp_path):
    file = corpus(tmp_path / "texts.jsonl", *(f"{word} is a word" for word in ("one", "two", "three")))
    found = probed(tmp_path, "method=lora", "optim.steps=8", f"forgetting.texts=[prose,general,{file}]")
    assert list(found["corpora"]) == ["prose", "general", str(file)]
    for one in found["corpora"].values():
        assert (one["n_texts"], one["n_written"], one["n_written_tokens"]) == (3, 2, 2 * probes.WRITTEN_TOKENS)
        assert len(one["each"]["nll_before"]) == len(one["each"]["nll_after"]) == 3
        assert one["kl_per_token"] == pytest.approx(sum(one["each"]["kl"]) / 2) and one["kl_per_token"] > 0
    kl = [one["kl_per_token"] for one in found["corpora"].values()]
    assert len(set(kl)) == 3 and found["kl_per_token"] == pytest.approx(sum(kl) / 3)
    assert (found["n_texts"], found["n_written"]) == (9, 6)
    own = [one["text_perplexity"]["after"] for one in found["corpora"].values()]
    assert min(own) < found["text_perplexity"]["after"] < max(own)
    alone = probed(tmp_path, "method=lora", "optim.steps=8", "forgetting.texts=[general]")
    assert alone["corpora"]["general"] == found["corpora"]["general"]


def test_the_text_that_comes_along_is_prose_of_five_works():
    texts = [example.text for example in corpora.texts("prose", 1000)]
    assert len(set(texts)) == len(texts) == 60 and all(480 <= len(text) <= 900 for text in texts)
    works = [json.loads(line)["work"] for line in BUNDLED["prose"].read_text().splitlines()]
    assert len(set(works[:5])) == len(set(works)) == 5  # they take turns, so that few texts are of all of them


def test_a_corpus_is_of_texts(tmp_path):
    with pytest.raises(TaskError, match=r"forgetting.texts=ha_json: .*'generate', not texts"):
        probed(tmp_path, "forgetting.texts=[ha_json]")


def test_the_key_of_one_corpus_says_what_it_is_now(tmp_path):
    with pytest.raises(ValueError, match=r"forgetting.text=a.jsonl: .*'forgetting.texts=\[a.jsonl\]'"):
        probed(tmp_path, "forgetting.text=a.jsonl")


# ---------------------------------------------------------------- replay and probe


def spellings(tmp_path: Path, file: Path) -> dict[str, str]:
    """The same source, by other words than the file's path."""
    link, copy = tmp_path / "link.jsonl", tmp_path / "copy.jsonl"
    link.symlink_to(file)
    copy.write_bytes(file.read_bytes())
    (tmp_path / "folder").mkdir()
    return {
        "path": str(file),
        "way round": str(tmp_path / "folder" / ".." / file.name),
        "link": str(link),
        "copy": str(copy),
        "task": f"jsonl task.train={file} task.n_val=1 task.n_test=1",
    }


@pytest.mark.parametrize("spelling", ["path", "way round", "link", "copy", "task"])
def test_replay_and_probe_are_never_of_one_source(tmp_path, spelling):
    file = corpus(tmp_path / "texts.jsonl", *(f"{word} is a word" for word in ("one", "two", "three", "four")))
    entry = spellings(tmp_path, file)[spelling]
    given = (f"forgetting.texts=[{file}]", "data.replay=0.5", f"data.replay_from=['{entry}']")
    both = rf"forgetting.texts={re.escape(str(file))} and data.replay_from={re.escape(entry)} are of one source"
    with pytest.raises(TaskError, match=both):
        probed(tmp_path, *given, "data.check=warn")  # it is no fault in the data, and no switch allows it
    probed(tmp_path, given[0], given[2])  # nothing is replayed


def test_general_text_is_replayed_or_probed_and_by_default_it_is_replayed(tmp_path):
    probed(tmp_path, "data.replay=0.5")
    for entry in ("general", "'general task.seed=1'"):
        with pytest.raises(TaskError, match=r"forgetting.texts=general and .* of one source, the task general"):
            probed(tmp_path, "data.replay=0.5", f"data.replay_from=[{entry}]", "forgetting.texts=[prose,general]")


def test_a_text_of_another_source_that_is_replayed_is_refused_by_its_place(tmp_path):
    probe = corpus(tmp_path / "probe.jsonl", "one is a word", "two  is a word")
    file = corpus(tmp_path / "replayed.jsonl", "three is a word", "two is a\nword")
    with pytest.raises(TaskError, match=r"probe 1 is also replayed, by .*replayed.jsonl \(.*replayed.jsonl:2\)"):
        probed(tmp_path, f"forgetting.texts=[{probe}]", "data.replay=0.5", f"data.replay_from=[{file}]")


def test_another_task_is_replayed_or_probed(tmp_path):
    given = ("data.replay=0.5", "data.replay_from=['ha_json task.n_train=8']", "forgetting.tasks=[ha_json]")
    with pytest.raises(TaskError, match=r"forgetting.tasks=ha_json and .*one source, the task ha_json"):
        probed(tmp_path, *given)


def test_a_probe_that_the_task_trains_on_is_refused(tmp_path):
    file = words(tmp_path / "words.jsonl")
    entry = f"jsonl task.train={file} task.n_val=5 task.n_test=6 task.seed=1"  # another split of the same records
    with pytest.raises(TaskError, match=r"forgetting.tasks=.*: probe \d+ is also trained on \(.*words.jsonl:\d+\)"):
        probed(tmp_path, f"forgetting.tasks=['{entry}']")
    probed(tmp_path, f"forgetting.tasks=['{entry}']", "data.check=warn")


# ---------------------------------------------------------------- multiple choice


def questions(file: Path, n: int = 8) -> Path:
    records = [{"prompt": f"{i} is", "choices": ["even", "odd", "neither"], "answer": i % 2} for i in range(n)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_a_file_of_multiple_choice_is_scored_by_likelihood_before_and_after(tmp_path):
    file = questions(tmp_path / "questions.jsonl")
    given = ("method=full", "optim.steps=8", f"forgetting.tasks=[{file}]", "forgetting.n_examples=6")
    own = probed(tmp_path, *given)["tasks"][str(file)]
    assert (own["metric"], own["n_examples"], own["chance"]) == ("accuracy", 6, pytest.approx(1 / 3))
    for when in ("before", "after"):
        each = own[f"each_{when}"]
        assert len(each) == 6 and set(each) <= {0.0, 1.0} and own[when] == pytest.approx(sum(each) / 6)
    again = probed(tmp_path, *given, "seed=1")["tasks"][str(file)]
    assert again["each_before"] == own["each_before"]


def test_another_file_under_the_same_name_is_another_run(tmp_path):
    from experiments.config.identity import key

    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "one"}\n')
    first = key(wanting(file))
    file.write_text('{"text": "two"}\n')
    assert key(wanting(file)) != first
    asked = config("model=tiny", f"forgetting.tasks=[{questions(tmp_path / 'questions.jsonl')}]")
    first = key(asked)
    questions(tmp_path / "questions.jsonl", 9)
    assert key(asked) != first


# ---------------------------------------------------------------- along the training


@pytest.mark.parametrize("method", ["lora", "full"])
def test_along_a_training_the_kl_is_taken_at_the_steps_of_the_curve(tmp_path, method):
    given = (f"method={method}", "optim.steps=8", "eval.points=3", "forgetting.texts=[prose,general]")
    made = overrides(tmp_path, *given, "forgetting.along=true", file=words(tmp_path / "words.jsonl"))
    result = run(config(*made))
    points = result["curve"]
    assert [point["step"] for point in points] == [0, 1, 3, 8]
    first, *_, last = (point["kl"] for point in points)
    assert first == [0.0] * 4  # the base, to the bit, before the first step
    assert last == [kl for corpus in result["forgetting"]["corpora"].values() for kl in corpus["each"]["kl"]]
    means = [sum(point["kl"]) / 4 for point in points]
    assert means[0] < means[1] < means[-1]
    without = run(config(*made, "forgetting.along=false"))
    assert all("kl" not in point for point in without["curve"])
    assert without["validation"] == result["validation"] and without["forgetting"] == result["forgetting"]


def test_an_encoder_has_no_kl_along_and_steps_are_asked_for(tmp_path):
    data = classes(tmp_path / "classes.jsonl")
    given = ("model=tiny_encoder", "method=lora", "optim.steps=4", "eval.points=2", "forgetting.along=true")
    assert all("kl" not in point for point in run(config(*overrides(tmp_path, *given, file=data)))["curve"])
    with pytest.raises(ValueError, match=r"forgetting.along=true: .* eval.points=12"):
        probed(tmp_path, "forgetting.along=true")
