"""Healing with `compile`: the same steps, however many shapes came before; and what is said where it cannot be."""

import copy
import os
import shutil

import pytest
import torch
import torch._inductor.config

from sentinel.errors import CompilationFailed
from sentinel.models.document_isolation import isolate_documents
from sentinel.models.families import family_of
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.fine_tuning.compilation import compiling
from tests.unit.pruning.fine_tuning.healing import heal
from tests.unit.pruning.tiny import tiny_gpt2, tiny_llama

# torch warns of what its own compiler uses.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

COMPILER = shutil.which(os.environ.get("CXX") or "g++")
SETTINGS = {"steps": 2}


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler: install g++")
# As behind eight cycles, where torch would run what is left as if nothing had been said of compiling.
@torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True)
def test_every_cycle_is_compiled_and_learns_the_same(windows):
    model, dense = tiny_gpt2(layers=1), tiny_gpt2(layers=1)
    family = family_of(model.config.model_type)
    for removed in ([0], [0]):
        apply_removal(model, family, {"attention": {0: removed}})
        twin = copy.deepcopy(model)
        expected, _ = heal(twin, dense, windows, **SETTINGS)
        found, _ = heal(model, dense, windows, compile=True, **SETTINGS)
        assert found.losses == pytest.approx(expected.losses, rel=1e-5)


@torch._inductor.config.patch(force_disable_caches=True)  # or what was compiled before would do
def test_a_compiler_that_is_not_there_is_named(windows, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    model = tiny_gpt2(layers=1)
    with pytest.raises(CompilationFailed, match="could not compile") as failed:
        heal(model, model, windows, compile=True, **SETTINGS)
    assert "g++" in failed.value.instance_next_step


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_attention_is_compiled_without_a_mask(make, windows):
    model, graphs = make(), []
    with compiling(model):
        torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph)(windows[:2], use_cache=False)
    calls = [node for graph in graphs for node in graph.graph.nodes if "scaled_dot_product" in str(node.target)]
    assert {(call.kwargs["attn_mask"], call.kwargs["is_causal"]) for call in calls} == {(None, True)}


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_documents_stay_apart_where_they_are_to(make):
    model = make()
    isolate_documents(model, start=0)
    tokens = torch.tensor([[0, 5, 6, 7, 0, 8, 9, 10]])
    with compiling(model):
        found = torch.compile(model, backend="eager")(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(found, model(input_ids=tokens, use_cache=False).logits)
