"""What trains nothing, or a head alone: untouched, with demonstrations, a linear probe, n-grams."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from experiments.data.demonstrations import drawn, shown
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskError
from tests.support.runs import (  # noqa: F401
    classes,
    config,
    directory,
    overrides,
    own_cache_and_torch_settings,
    run,
    words,
)

QUIET = ("forgetting.enabled=false",)


def test_a_linear_probe_trains_the_head_and_nothing_else(tmp_path):
    file = classes(tmp_path / "classes.jsonl")
    made = config(*overrides(tmp_path, "model=tiny_encoder", "method=head", *QUIET, file=file))
    result = run(made)
    assert result["config"]["method"]["baseline"] is True
    assert result["parameters"]["trainable"] == 2 * 64 + 2
    assert all(name.startswith("classifier") for name in load_file(directory(made) / "delta.safetensors"))


def test_a_head_alone_needs_a_model_with_a_head(tmp_path):
    with pytest.raises(ValueError, match=r"method=head: it has no rules, and model=tiny has no task head"):
        run(config(*overrides(tmp_path, "method=head", *QUIET)))


def test_a_mean_pooled_encoder_reads_every_token_and_no_padding():
    import torch

    from experiments.models.load import load_model

    made = config("model=tiny_encoder", "model.pooling=mean", "device=cpu")
    loaded = load_model(made.model, dtype=torch.float32, device=torch.device("cpu"), outputs=("a", "b", "c"))
    ids, mask = torch.tensor([[5, 6, 7], [5, 6, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    logits = loaded.model(input_ids=ids, attention_mask=mask).logits
    hidden = loaded.model.base_model(input_ids=ids[1:, :2], attention_mask=mask[1:, :2]).last_hidden_state
    head = loaded.model.classifier
    torch.testing.assert_close(logits[1], head(hidden[0].mean(0)))
    assert not any("pooler" in name for name, _ in loaded.model.named_parameters())
    assert loaded.model.get_output_embeddings() is None


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "adapter", "bitfit", "ia3", "full", "head"])
def test_every_method_trains_under_a_mean_pooled_head(tmp_path, method):
    file = classes(tmp_path / "classes.jsonl")
    given = ("model=tiny_encoder", "model.pooling=mean", f"method={method}", "optim.steps=3")
    result = run(config(*overrides(tmp_path, *given, file=file)))
    assert result["status"] == "complete"
    assert (result["forgetting"]["feature_drift"] < 1e-6) == (method == "head")


def test_demonstrations_stand_before_the_prompts_that_are_scored(tmp_path):
    shots = 3
    made = config(*overrides(tmp_path, "method=few_shot", f"method.shots={shots}", "optim.max_length=400", *QUIET))
    result, none = run(made), run(config(*overrides(tmp_path, "method=none", "optim.max_length=400", *QUIET)))
    assert result["parameters"]["trainable"] == none["parameters"]["trainable"] == 0
    assert result["validation"]["loss"] != none["validation"]["loss"]
    assert result["data"]["n_truncated"] == 0


def test_demonstrations_are_drawn_by_the_data_stream(tmp_path):
    losses = {
        (seed, stream): run(
            config(*overrides(tmp_path, "method=few_shot", f"seed={seed}", f"seeds.data={stream}", *QUIET))
        )["loss"]["validation"]
        for seed, stream in ((0, 0), (1, 0), (0, 1))
    }
    assert losses[0, 0] == losses[1, 0] != losses[0, 1]


def test_a_chats_demonstrations_are_turns_after_the_systems():
    def chat(name: str) -> Example:
        turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": f"ask {name}"})
        return Example(messages=turns, completion=f"answer {name}")

    turns = shown(chat("c"), [chat("a"), chat("b")]).messages
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [turn["content"] for turn in turns[1:]] == ["ask a", "answer a", "ask b", "answer b", "ask c"]
    pair = shown(Example(text="x", text_pair="y", completion="1"), [Example(text="u", text_pair="v", completion="0")])
    assert (pair.text, pair.text_pair) == ("u\nv\n0\n\nx\ny", None)


def test_demonstrations_have_as_many_answers_as_there_are(tmp_path):
    records = [{"text": f"text {i}", "label": "a" if i < 30 else f"b{i % 3}"} for i in range(40)]
    file = tmp_path / "classes.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = load_task(config(*overrides(tmp_path, file=file)).task)
    for seed in range(5):
        assert len({example.completion for example in drawn(data, 4, seed)}) == 4
    with pytest.raises(TaskError, match=r"method\.shots=1000: task=jsonl has"):
        drawn(data, 1000, 0)


def test_n_grams_tell_classes_apart_that_their_words_give_away(tmp_path):
    file = classes(tmp_path / "classes.jsonl")
    given = ("model=tiny_encoder", "method=tfidf", *QUIET)
    result = run(config(*overrides(tmp_path, *given, file=file)))
    assert result["quality"]["accuracy"] == result["validation"]["accuracy"] == 1.0
    assert 0 < result["validation"]["loss"] < 0.69
    assert result["parameters"]["trainable"] == 0


def test_n_grams_write_no_text(tmp_path):
    with pytest.raises(TaskError, match="method=tfidf: it tells classes apart"):
        run(config(*overrides(tmp_path, "method=tfidf", *QUIET)))


def test_an_unknown_predictor_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"method\.predictor=svm: there is no such predictor; there are: tfidf"):
        run(config(*overrides(tmp_path, "method=tfidf", "method.predictor=svm", *QUIET)))


def test_n_grams_need_two_classes(tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text("".join(json.dumps({"text": f"text {i}", "label": "a"}) + "\n" for i in range(30)))
    with pytest.raises(TaskError, match=r"method=tfidf: task=jsonl trains on one class alone, 'a'"):
        run(config(*overrides(tmp_path, "model=tiny_encoder", "method=tfidf", "data.check=off", *QUIET, file=file)))


def test_fewer_than_no_demonstrations_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"method\.shots=-1: must not be below 0"):
        run(config(*overrides(tmp_path, "method=few_shot", "method.shots=-1", *QUIET)))
