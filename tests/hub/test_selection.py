"""Which files are fetched: one set of weights, nothing that runs, and every omission with its reason."""

from __future__ import annotations

import pytest

from influence.errors import InvalidParameter, NoSafeWeights, UnsafeName
from influence.hub.records import RemoteFile
from influence.hub.selection import Selection, select


def chosen(selection: Selection) -> list[str]:
    return [file.path for file in selection.chosen]


def files(*paths: str) -> list[RemoteFile]:
    return [RemoteFile(path, 10) for path in paths]


# As published: (files of the repository, those of them that are fetched).
REPOSITORIES = {
    "TinyLlama": (
        [".gitattributes", "README.md", "config.json", "eval_results.json", "generation_config.json",
         "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"],
        ["README.md", "config.json", "eval_results.json", "generation_config.json", "model.safetensors",
         "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"],
    ),
    "Mistral, with the author's own file beside the shards": (
        ["config.json", "consolidated.safetensors", "model-00001-of-00003.safetensors",
         "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors", "model.safetensors.index.json",
         "params.json", "tokenizer.json", "tokenizer.model.v3"],
        ["config.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
         "model-00003-of-00003.safetensors", "model.safetensors.index.json", "params.json", "tokenizer.json",
         "tokenizer.model.v3"],
    ),
    "Llama 3, with original/": (
        ["LICENSE", "USE_POLICY.md", "config.json", "model.safetensors", "original/consolidated.00.pth",
         "original/params.json", "original/tokenizer.model", "tokenizer.json"],
        ["LICENSE", "USE_POLICY.md", "config.json", "model.safetensors", "tokenizer.json"],
    ),
    "GPT-2, in every format there is": (
        ["64-8bits.tflite", "config.json", "flax_model.msgpack", "merges.txt", "model.safetensors",
         "onnx/decoder_model.onnx", "onnx/config.json", "pytorch_model.bin", "rust_model.ot", "tf_model.h5",
         "tokenizer.json", "vocab.json"],
        ["config.json", "merges.txt", "model.safetensors", "tokenizer.json", "vocab.json"],
    ),
    "code, pictures, GGUF and quantised ONNX": (
        ["config.json", "configuration_x.py", "modeling_x.py", "assets/logo.png", "banner.webp", "model.safetensors",
         "model-q4_k_m.gguf", "model.onnx_data", "chat_template.jinja", "additional_chat_templates/tool_use.jinja"],
        ["additional_chat_templates/tool_use.jinja", "chat_template.jinja", "config.json", "model.safetensors"],
    ),
    "two precisions and an adapter": (
        ["config.json", "model.safetensors", "model.fp16.safetensors", "model.fp16.safetensors.index.json",
         "adapter_model.safetensors", "training_args.bin", "runs/Jan01/events.out.tfevents.1"],
        ["config.json", "model.safetensors"],
    ),
    "weights of another name alone": (
        ["config.json", "weights.safetensors", "weights.safetensors.index.json"],
        ["config.json", "weights.safetensors", "weights.safetensors.index.json"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("published", "fetched"), REPOSITORIES.values(), ids=REPOSITORIES)
def test_one_set_of_weights_and_what_explains_it_is_fetched(published: list[str], fetched: list[str]) -> None:
    selection = select(files(*published))
    assert chosen(selection) == fetched
    left_out = {file.path: reason for file, reason in selection.left_out}
    assert set(left_out) == set(published) - set(fetched)
    assert all(left_out.values())


@pytest.mark.parametrize(
    ("published", "found"),
    [
        (["config.json", "pytorch_model.bin"], r"\.bin"),
        (["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], r"\.bin"),
        (["config.json", "model.pt"], r"\.pt"),
        (["config.json", "consolidated.00.pth"], r"\.pth"),
        (["README.md", "model.Q4_K_M.gguf"], r"\.gguf"),
        (["config.json", "tf_model.h5", "pytorch_model.bin"], r"\.bin and weights in \.h5|\.bin and \.h5"),
        (["config.json", "onnx/model.onnx"], r"\.onnx"),
    ],
)
def test_a_model_without_safetensors_is_refused_with_what_it_has(published: list[str], found: str) -> None:
    with pytest.raises(NoSafeWeights, match=found) as caught:
        select(files(*published), repo="org/name")
    assert "org/name" in caught.value.message
    assert "influence search" in caught.value.hint


def test_a_model_without_any_weights_is_fetched_as_it_is() -> None:
    assert chosen(select(files("config.json", "tokenizer.json", "training_args.bin"))) == [
        "config.json",
        "tokenizer.json",
    ]


def test_what_is_included_is_taken_whatever_it_is() -> None:
    selection = select(files("a.bin", "b.bin", "config.json"), include=["a.*", "*.json"])
    assert chosen(selection) == ["a.bin", "config.json"]
    assert selection.left_out == ((RemoteFile("b.bin", 10), "not included"),)


def test_what_is_excluded_is_not_though_it_is_included_too() -> None:
    selection = select(
        files("config.json", "model.safetensors", "x/y.json"), include=["*"], exclude=["x/*", "*.md"]
    )
    assert chosen(selection) == ["config.json", "model.safetensors"]
    assert selection.left_out == ((RemoteFile("x/y.json", 10), "excluded"),)


def test_patterns_that_leave_nothing_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="include/exclude"):
        select(files("config.json", "model.safetensors"), include=["*.txt"])
    with pytest.raises(InvalidParameter, match="include/exclude"):
        select(files("config.json", "model.safetensors"), exclude=["*"])


def test_an_unsafe_name_among_the_chosen_refuses_them_all() -> None:
    with pytest.raises(UnsafeName, match=r"\.\./evil\.json"):
        select(files("config.json", "model.safetensors", "../evil.json"), include=["*"])
    with pytest.raises(UnsafeName, match="same file"):
        select(files("config.json", "Config.json", "model.safetensors"))


def test_an_unsafe_name_that_is_left_out_harms_nobody() -> None:
    assert chosen(select(files("config.json", "model.safetensors", "../evil.bin", "CON.png"))) == [
        "config.json",
        "model.safetensors",
    ]


def test_the_size_of_a_selection_is_known_if_all_of_its_sizes_are() -> None:
    assert select(files("config.json", "model.safetensors", "x.bin")).size_bytes == 20
    assert select([RemoteFile("config.json"), *files("model.safetensors")]).size_bytes is None


def test_a_model_of_nothing_is_refused_as_that_and_not_as_a_wrong_pattern() -> None:
    with pytest.raises(NoSafeWeights, match="an empty list of files"):
        select([])
    with pytest.raises(NoSafeWeights, match="files that no model needs"):
        select([RemoteFile("photo.png", 1)])
