"""The dense and the pruned model side by side: everything that a result says of each."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sentinel.inputs import Inputs
from sentinel.models.evaluation import compare, count_parameters, kv_bytes_per_token, perplexity
from sentinel.models.families.base import UNITS, Family
from sentinel.models.loaders.tokenizer import generate
from sentinel.models.optimized.inference_benchmark import forward_latency
from sentinel.models.task_evaluation import Scores
from sentinel.result import GroupCounts, Measurement, PrunedMeasurement, TaskResult
from sentinel.spec import Evaluate

# Length of the sample continuations, in tokens.
SAMPLE_TOKENS = 40


def measure(
    inputs: Inputs, pruned: PreTrainedModel, evaluate: Evaluate, *, dense_samples: list[str]
) -> tuple[Measurement, PrunedMeasurement]:
    """Loss, size, cache, latency and samples of both models, the divergence between them and their agreement.

    Raises:
        LossNotFinite: As `compare` says.
    """
    dense = inputs.dense
    losses = compare(dense, pruned, inputs.evaluation)
    latencies = forward_latency([dense, pruned], inputs.evaluation[0])
    samples = continue_prompts(pruned, inputs.tokenizer, evaluate)
    of_pruned = _measurement(pruned, inputs.family, losses.pruned_loss, latencies[1], samples)
    return (
        _measurement(dense, inputs.family, losses.dense_loss, latencies[0], dense_samples),
        PrunedMeasurement(**of_pruned.model_dump(), kl_to_dense=losses.kl_to_dense, agreement=losses.agreement),
    )


def continue_prompts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, evaluate: Evaluate) -> list[str]:
    """Greedy continuations of the spec's prompts."""
    return generate(model, tokenizer, evaluate.prompts, max_new_tokens=SAMPLE_TOKENS) if evaluate.prompts else []


def task_results(dense: Scores, pruned: Scores) -> list[TaskResult]:
    """Both models' scores on the same tasks, metric by metric."""
    return [
        TaskResult(
            task=task,
            metric=metric,
            documents=score.documents,
            higher_is_better=score.higher_is_better,
            dense=score.value,
            pruned=pruned[task, metric].value,
            dense_stderr=score.stderr,
            pruned_stderr=pruned[task, metric].stderr,
        )
        for (task, metric), score in dense.items()
    ]


def _measurement(
    model: PreTrainedModel, family: Family, loss: float, latency_ms: float, samples: list[str]
) -> Measurement:
    return Measurement(
        loss=loss,
        perplexity=perplexity(loss),
        parameters=count_parameters(model),
        groups=GroupCounts(**{unit: sum(family.counts(model, unit)) for unit in UNITS}),
        kv_bytes_per_token=kv_bytes_per_token(model, family),
        latency_ms=latency_ms,
        samples=samples,
    )
