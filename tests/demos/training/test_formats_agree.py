"""The bundled models: each format gives the same token ids and the same greedy answers."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from demos.training import export_hf
from demos.training.chat import FORMATS
from demos.training.logbook import held_out

if TYPE_CHECKING:
    from collections.abc import Callable

    Engine = Callable[[Path], Any]

NAMES = ("cloud", "device", "device-alt")
# Through one prompt of about 220 tokens and one answer: an answer is short enough for every engine to be quick.
LENGTH, LONGEST_ANSWER = 200, 48
PIECES = (
    *"abcXYZ019 \n\t\r.,!'é中😀<|>_-", "  ", "\r\n", "\n\n", "the ", " Wim", "412", "1234", "don't", "DON'T ", "我们",
    "👩\u200d👧", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|user|>", "</s>", "naïve", "\u00a0", "٣٤", "ß",
)  # fmt: skip


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, models: Path) -> Path:
    return models / request.param


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def prompt(folder: Path, tokenizer: Tokenizer) -> list[int]:
    (case,) = held_out("lookup", LENGTH, 1, seed=1)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = jinja2.Environment(autoescape=True).from_string(
        "{% autoescape false %}" + settings["chat_template"] + "{% endautoescape %}"
    )
    text = template.render(messages=case.messages, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False).ids


def _rendered(template: str, messages: list[dict[str, str]]) -> str:
    # Prompts are no web pages: nothing is to be escaped.
    environment = jinja2.Environment(autoescape=False)  # noqa: S701
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


def _greedy(engine: Any, prompt: list[int], end: int) -> list[int]:
    answer = [int(engine.forward(np.array(prompt))[-1].argmax())]
    while answer[-1] != end and len(answer) < LONGEST_ANSWER:
        answer.append(int(engine.forward(np.array(answer[-1:]))[-1].argmax()))
    return answer


def test_all_engines_answer_alike(
    folder: Path, prompt: list[int], dynamic: Engine, fixed: Engine, llama: Engine
) -> None:
    end, _ = export_hf.special_ids(folder)
    expected = _greedy(dynamic(folder), prompt, end)
    assert expected[-1] == end
    assert _greedy(fixed(folder), prompt, end) == expected
    model = llama(folder)
    found = []
    for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
        found.append(token)
        if token == end or len(found) == LONGEST_ANSWER:
            break
    model.close()
    assert found == expected


def test_any_text_becomes_the_same_tokens_in_llama_cpp(folder: Path, tokenizer: Tokenizer, llama: Engine) -> None:
    rng = Random(4)
    texts = ["".join(rng.choices(PIECES, k=rng.randint(1, 40))) for _ in range(1500)]
    model = llama(folder)
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert model.tokenize(text.encode(), add_bos=False, special=True) == ids, text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    model.close()


def test_gguf_carries_template_and_end(folder: Path, llama: Engine) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    model = llama(folder)
    assert model.metadata["tokenizer.chat_template"] == settings["chat_template"]
    assert model.metadata["tokenizer.ggml.add_bos_token"] == "false"
    assert model.token_eos() == export_hf.special_ids(folder)[0]
    model.close()


def test_numbers_below_a_thousand_are_one_token(tokenizer: Tokenizer) -> None:
    assert all(len(tokenizer.encode(str(number), add_special_tokens=False).ids) == 1 for number in range(1000))


@pytest.mark.parametrize(("name", "form"), [("cloud", "chatml"), ("device", "chatml"), ("device-alt", "tagged")])
def test_templates_are_what_training_saw(models: Path, name: str, form: str) -> None:
    chat = FORMATS[form]
    settings = json.loads((models / name / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == chat.template
    messages = [("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V")]
    rendered = _rendered(chat.template, [{"role": role, "content": content} for role, content in messages])
    expected = "".join(chat.open(role) + content + chat.end + chat.separator for role, content in messages)
    assert rendered == expected + chat.open("assistant")


def test_cloud_and_device_share_a_tokenizer_and_the_other_device_does_not(models: Path) -> None:
    texts = {name: (models / name / "tokenizer.json").read_text() for name in NAMES}
    assert texts["cloud"] == texts["device"]
    other, same = (set(json.loads(texts[name])["model"]["vocab"]) for name in ("device-alt", "device"))
    assert other != same


def test_sizes_are_as_promised(models: Path) -> None:
    sizes = {}
    for name in NAMES:
        config, weights = export_hf.load(models / name)
        sizes[name] = sum(values.size for values in weights.values())
        assert config.context >= 4608
        assert all(np.isfinite(values).all() for values in weights.values())
    assert 3e6 <= sizes["cloud"] <= 6e6
    assert 1e6 <= sizes["device"] <= 2e6
    assert 1e6 <= sizes["device-alt"] <= 2e6
    assert sum(path.stat().st_size for path in models.rglob("*") if path.is_file()) < 40e6


def test_the_reference_recorded_in_pytorch(models: Path, dynamic: Engine, tmp_path: Path) -> None:
    """Logits and attention rows of the ONNX graph against what PyTorch computed, with one added output per layer."""
    reference = np.load(Path(__file__).parent / "reference" / "device.npz")
    ids, layers = reference["ids"], reference["layers"]
    engine = dynamic(models / "device")
    np.testing.assert_allclose(engine.forward(ids)[-1], reference["logits"], atol=2e-3)

    model = onnx.load(str(models / "device" / "model.onnx"))
    taps = [f"model.layers.{layer}.self_attn.attention" for layer in layers]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(tap, onnx.TensorProto.FLOAT, None) for tap in taps)
    onnx.save(model, str(tmp_path / "model.onnx"))
    tapped = dynamic(tmp_path)
    *_, first, second = tapped.run(
        ids[None], np.ones((1, len(ids)), np.int64), np.arange(len(ids))[None], tapped.empty()
    )
    rows = reference["attention"].shape[2]
    found = np.stack([first[0, :, -rows:], second[0, :, -rows:]])
    np.testing.assert_allclose(found, reference["attention"], atol=1e-4)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-5)
