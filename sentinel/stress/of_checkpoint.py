"""The same for a checkpoint that is there already: loads both models and all texts as a run does."""

from collections.abc import Callable
from pathlib import Path

from sentinel.data.loaders.windows import start_token
from sentinel.errors import SpecInvalid
from sentinel.inputs import load_inputs
from sentinel.models.document_isolation import isolate_documents
from sentinel.models.loaders.load import load_model
from sentinel.spec import PathModel, Spec
from sentinel.stress.protocol import stress
from sentinel.stress_result import StressResult


def stress_checkpoint(spec: Spec, checkpoint: Path, *, tell: Callable[[str], None]) -> StressResult:
    """Measure what `spec.evaluate.stress` asks for.

    Args:
        spec: Names the dense model, and the text that the checkpoint was made on.
        checkpoint: Folder of the pruned model.
        tell: Hears what is measured next.

    Raises:
        SpecInvalid: It asks for nothing, or the two models have different vocabularies.
        SentinelError: As `load_inputs`, `load_model` and `stress` say.
    """
    section = spec.evaluate.stress
    if section is None:
        raise SpecInvalid("`evaluate.stress` is null: there is nothing to measure.")
    inputs = load_inputs(spec, allowed_roots=None)
    source = PathModel(path=str(checkpoint), dtype=spec.model.dtype)
    pruned, _, _ = load_model(source, device=inputs.dense.device, dtype=source.dtype)
    sizes = inputs.dense.config.vocab_size, pruned.config.vocab_size
    if sizes[0] != sizes[1]:
        raise SpecInvalid(f"The dense model knows {sizes[0]} tokens, the checkpoint {sizes[1]}: not the same model.")
    if spec.data.isolate_documents:
        isolate_documents(pruned, start_token(inputs.tokenizer))
    pruned.requires_grad_(requires_grad=False)
    return stress(inputs, pruned, section, seed=spec.seed, tell=tell)
