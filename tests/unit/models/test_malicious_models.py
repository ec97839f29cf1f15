"""Folders made to run code, to read what is not theirs, or to take memory: each is refused before anything is loaded.

What each would lead to in `transformers` is in docs/security.md. Every folder also holds pickles and modules that
leave a trace if anybody opens them.
"""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import sentinel
from sentinel.errors import SentinelError
from sentinel.model_limits import ModelLimits, check_limits
from sentinel.models.loaders.checks import check_folder
from sentinel.models.loaders.load import load_model
from sentinel.models.loaders.uneven import UNEVEN_KEYS
from sentinel.safetensors_header import LARGEST_HEADER_BYTES
from sentinel.spec import PathModel
from tests.safetensors_files import write_safetensors

BUILTIN = Path(sentinel.__file__).parent / "models" / "builtin" / "llama"
TRACE = "somebody-ran-this"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(TRACE),)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A good model, armed; the working directory is where a trace would be left."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(BUILTIN, tmp_path / "model")
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    code = f"from pathlib import Path\nPath({str(tmp_path / TRACE)!r}).touch()\nclass Evil: ...\n"
    (folder / "custom_generate").mkdir()
    for name in ("evil.py", "modeling_sentinel_evil.py", "custom_generate/generate.py"):
        (folder / name).write_text(code)
    return folder


@pytest.fixture
def refusal(folder, tmp_path):
    """How the loader refuses the folder; it was not to load a byte of it, nor to leave a trace."""

    def refuse() -> SentinelError:
        admitted = []
        with pytest.raises(SentinelError) as found:
            load_model(PathModel(path=str(folder)), device="cpu", dtype="float32", admit=admitted.append)
        assert admitted == []
        assert not (tmp_path / TRACE).exists()
        assert found.value.as_dict()["next_step"]
        return found.value

    return refuse


def edit(file: Path, **changes: object) -> None:
    kept = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(kept | changes))


def test_an_armed_folder_loads_as_long_as_nothing_leads_to_its_arms(folder, tmp_path):
    load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")
    assert not (tmp_path / TRACE).exists()


EVIL = {"AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoProcessor": "evil.Evil"}
CODE = [
    ("config.json", {"auto_map": EVIL}),
    ("config.json", {"text_config": {"auto_map": EVIL}}),
    ("config.json", {"auto_map": {"AutoConfig": "someone/repo--modeling_sentinel_x.Y"}, "per_layer_config": {}}),
    ("tokenizer_config.json", {"auto_map": EVIL}),
    ("special_tokens_map.json", {"auto_map": EVIL}),
    ("generation_config.json", {"auto_map": EVIL}),
    ("processor_config.json", {"auto_map": EVIL}),
    ("preprocessor_config.json", {"image_processor": {"auto_map": EVIL}}),
    ("config.json", {"_attn_implementation_internal": "someone/kernel"}),
    ("config.json", {"sub": [{"deep": {"_experts_implementation_internal": "someone/kernel"}}]}),
    ("generation_config.json", {"_attn_implementation_internal": "someone/kernel"}),
    ("tokenizer_config.json", {"extra": {"_anything_internal": 1}}),
    ("config.json", {"attn_implementation": "someone/kernel:function"}),
    ("config.json", {"_attn_implementation": "flash_attention_2"}),
    ("config.json", {"attn_implementation": {"": "paged|flash_attention_3"}}),
    ("config.json", {"experts_implementation": "deepgemm"}),
    ("config.json", {"custom_generate": "someone/repo"}),
    ("generation_config.json", {"custom_generate": "custom"}),
    ("generation_config.json", {"penalty_alpha": 0.6, "top_k": 4}),
    ("generation_config.json", {"num_beam_groups": 2}),
    ("config.json", {"force_words_ids": [[1]]}),
    ("config.json", {"fusion_config": {"patch_embeddings": True}}),
    ("adapter_config.json", {"base_model_name_or_path": "someone/base", "auto_mapping": EVIL}),
    # Any class of transformers, with `from_pretrained`: one that unpickles, one that asks before it runs the code.
    ("tokenizer_config.json", {"tokenizer_class": "AutoModelForCausalLM"}),
    ("tokenizer_config.json", {"tokenizer_class": "RagRetriever"}),
    ("config.json", {"tokenizer_class": "AutoProcessor"}),
    ("tokenizer_config.json", {"tokenizer_class": ["LlamaTokenizer"]}),
]


@pytest.mark.parametrize(("file", "changes"), CODE, ids=str)
def test_what_leads_to_code_is_unsafe(folder, refusal, file, changes):
    edit(folder / file, **changes)
    assert refusal().code == "model_unsafe"


ELSEWHERE = [
    ("config.json", {"transformers_weights": "other.safetensors.index.json"}),
    ("config.json", {"transformers_weights": "adapter_model.bin"}),
    ("config.json", {"configuration_files": ["config.4.0.0.json"]}),
    ("config.json", {"base_model": "someone/base"}),
    ("tokenizer_config.json", {"fast_tokenizer_files": ["../../tokenizer.4.0.0.json"]}),
    ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}),
    ("special_tokens_map.json", {"merges_file": "../secret"}),
    ("tokenizer_config.json", {"vocab": "/etc/passwd"}),
    ("special_tokens_map.json", {"vocab": "/etc/passwd"}),
    ("tokenizer_config.json", {"gguf_file": "../other/model.gguf"}),
    ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}),
]


@pytest.mark.parametrize(("file", "changes"), ELSEWHERE, ids=str)
def test_what_leads_to_files_elsewhere_is_unsafe(folder, refusal, file, changes):
    edit(folder / file, **changes)
    assert refusal().code == "model_unsafe"


def test_transformers_would_read_a_tokenizer_s_vocabulary_from_anywhere(folder, refusal, tmp_path):
    """Why a tokenizer's config is checked: what it reads is in the checkpoint that a job hands out."""
    (tmp_path / "secret").write_text("[UNK]\npassword\n")
    (folder / "tokenizer.json").unlink()
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", vocab=str(tmp_path / "secret"))
    assert "password" in AutoTokenizer.from_pretrained(folder).get_vocab()
    assert refusal().code == "model_unsafe"


def test_names_of_files_that_old_tokenizers_remember_are_no_danger(folder):
    remembered = {"special_tokens_map_file": "/home/a/b.json", "tokenizer_file": "/home/a/tokenizer.json"}
    edit(folder / "tokenizer_config.json", **remembered, vocab_file=None, merges_file="merges.txt", init_inputs=[])
    assert check_folder(folder).path == folder


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt"])
def test_pickles_alone_are_unsafe(folder, refusal, name):
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    assert refusal().code == "model_unsafe"


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "sub/x.safetensors", "pytorch_model.bin", ".."]
)
@pytest.mark.parametrize("whole", [True, False])
def test_an_index_that_leads_out_or_to_pickles_is_unsafe(folder, refusal, shard, whole):
    if not whole:
        (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"a": shard}}))
    assert refusal().code == "model_unsafe"


@pytest.mark.parametrize("index", [{"weight_map": {"a": "gone.safetensors"}}, {"weight_map": "x"}, {"weight_map": {}}])
def test_an_index_that_names_nothing_is_invalid(folder, refusal, index):
    (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    (folder / INDEX).write_text(json.dumps(index))
    assert refusal().code == "model_invalid"


def test_a_tensor_in_two_shards_is_invalid(folder, refusal):
    (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    shutil.copy(folder / "model-1.safetensors", folder / "model-2.safetensors")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    assert "in another file" in refusal().message


def test_weights_as_torch_distributed_writes_them_are_unsupported(folder, refusal):
    shutil.copy(folder / WEIGHTS, folder / "shard-00001-model-00001-of-00001.safetensors")
    assert refusal().code == "model_unsupported"


def tensor(begin=0, end=8, *, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


TWICE = f'{{"a": {json.dumps(tensor())}, "a": {json.dumps(tensor(shape=(1, 2)))}}}'
HEADERS = {
    "two gigabytes": (b"\x00\x00\x00\x80\x00\x00\x00\x00{}", "declares 2147483648 bytes"),
    "sixteen exabytes": (b"\xff" * 8, "declares"),
    "longer than the file": (b"\x09\x00\x00\x00\x00\x00\x00\x00{}", "declares 9 bytes"),
    "empty": (b"", "declares 0 bytes"),
    "beyond the end": ({"a": tensor(0, 8, shape=(2,)), "b": tensor(8, 16)}, "end at byte 16 of 8"),
    "overlap": ({"a": tensor(0, 8), "b": tensor(4, 12)}, "where 8 was to follow"),
    "a gap": ({"a": tensor(4, 12)}, "where 0 was to follow"),
    "a rest": ({"a": tensor(0, 4, shape=(1,))}, "end at byte 4 of 8"),
    "backwards": ({"a": tensor(8, 0)}, "takes -8 bytes"),
    "negative": ({"a": tensor(-8, 0)}, "no whole number"),
    "a larger shape": ({"a": tensor(0, 8, shape=(10**12, 10**12))}, "takes 8 bytes"),
    "a negative shape": ({"a": tensor(0, 8, shape=(-1, -2))}, "no whole number"),
    "a shape of words": ({"a": tensor(0, 8, shape=("2",))}, "no whole number"),
    "another type": ({"a": tensor(0, 8, dtype="F64")}, "takes 8 bytes"),
    "an unknown type": ({"a": tensor(0, 8, dtype="PICKLE")}, "PICKLE"),
    "the same name twice": (TWICE, "stands twice"),
    "no object": ("[]", "items"),
    "too deep": ("[" * 100_000, "recursion"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie_are_invalid(folder, refusal, name):
    header, says = HEADERS[name]
    if isinstance(header, bytes):
        (folder / WEIGHTS).write_bytes(header)
    else:
        write_safetensors(folder / WEIGHTS, header, data=bytes(8))
    error = refusal()
    assert error.code == "model_invalid"
    assert says in error.message


def test_a_header_that_is_there_but_too_long_is_not_read(folder, refusal):
    with (folder / WEIGHTS).open("wb") as file:
        file.write((LARGEST_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(LARGEST_HEADER_BYTES + 100)
    assert "declares" in refusal().message


LARGE = ["config.json", "generation_config.json", "tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja"]


@pytest.mark.parametrize("name", [*LARGE, INDEX])
def test_documents_of_absurd_size_are_not_read(folder, refusal, name):
    with (folder / name).open("ab") as file:
        file.truncate(2**33)
    error = refusal()
    assert error.code == "model_invalid"
    assert "are not read" in error.message


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_what_has_no_end_is_not_read(folder, refusal, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "no regular file" in refusal().message


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", WEIGHTS, "additional_chat_templates/x.jinja", "sub"])
def test_links_out_of_the_allowed_roots_are_refused(folder, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_text("secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(SentinelError) as found:
        load_model(PathModel(path=str(folder)), device="cpu", dtype="float32", allowed_roots=[folder])
    assert found.value.code == "path_not_allowed"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"n_layer": 10**9}, "layers"),
        ({"max_position_embeddings": 10**9}, "positions"),
        ({"vocab_size": 10**9}, "tokens"),
        ({"num_labels": 10**9}, "tokens"),
    ],
    ids=str,
)
def test_what_a_config_says_is_limited(folder, changes, what):
    edit(folder / "config.json", **changes)
    with pytest.raises(SentinelError, match=f"1,000,000,000 {what}") as found:
        check_limits(folder, ModelLimits())
    assert found.value.code == "model_too_large"


@pytest.mark.parametrize("what", ModelLimits.model_fields)
def test_every_limit_holds(folder, what):
    assert check_limits(folder, ModelLimits()).parameters == 771_200
    with pytest.raises(SentinelError, match="takes 1 at most") as found:
        check_limits(folder, ModelLimits(**{what: 1}))
    assert found.value.code == "model_too_large"


@pytest.mark.parametrize("uneven", [False, True])
def test_a_config_far_beyond_its_weights_gets_no_memory(folder, uneven):
    own = {key: {} for key in UNEVEN_KEYS} | {"auto_map": {"AutoConfig": "modeling_sentinel_evil.Evil"}}
    edit(folder / "config.json", **(own if uneven else {}), vocab_size=2**20, hidden_size=2**17)
    with pytest.raises(SentinelError, match="describes a model of") as found:
        load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")
    assert found.value.code == "model_invalid"
