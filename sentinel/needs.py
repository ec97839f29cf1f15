"""How much memory an experiment will take at most, told from its spec and the headers of the weights. Torch-free.

An estimate: it counts the tensors that every phase holds at its peak, and for libraries and allocators `BASE_BYTES` and
`HOARDED_BYTES`. Both models are always there: the last comparison is of their predictions at every position, too many
to be kept instead of the dense model.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sentinel.data.budget import FORWARD_TOKENS
from sentinel.errors import Fault, SentinelError
from sentinel.heal_spec import Heal
from sentinel.model_shape import ModelShape, Shape, count
from sentinel.plain import LARGEST_INTEGER
from sentinel.spec import Spec

# A process with torch and transformers imported, or a CUDA context with its libraries.
BASE_BYTES = 700 * 1024**2
# glibc keeps freed blocks of up to 32 MB: on a CPU, as much again as small tensors take, but not much more than this.
HOARDED_BYTES = 256 * 1024**2
BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}
# The gradient and AdamW's two moments, each like what is learnt.
TRAINING_COPIES = 3
# In an exchange of groups there are the grown model and the copy that it has to beat.
EXCHANGE_COPIES = 2
# Per token and likely token that is kept of the dense model.
TEACHER_BYTES = 8
# Of what the matrices of a layer read and write, for what stands between them: norms, activation functions, rotations.
# 1.1 to 2.0 in float32, over ten architectures (docs/experiments.md, 2026-11-27).
ACTIVATION_COPIES = 2
# Of a micro-batch's logits, in float32, while it is learnt from: of both models, their log-softmaxes and gradients; or
# of one model. Scores that need gradients hold as many as the former.
LEARNING_COPIES = {"distill": 7, "cross_entropy": 5}
# Of one window's logits, in float32, while two models are compared.
COMPARING_COPIES = 8
# Of a layer's weights, in float32: L-BFGS keeps two of each of 20 iterations, and works on eight.
RECONSTRUCTION_COPIES = 2 * 20 + 8
# Of the residual stream at the calibration tokens: the uncut model's and the cut one's, before and behind the layer.
STREAM_COPIES = 4
# Of an input's second moment, in float64: its parts by held-out windows, their sum, and a factorisation.
MOMENT_COPIES = 6


class Needs(BaseModel):
    """What an experiment asks of a machine."""

    model_config = ConfigDict(frozen=True)

    parameters: Annotated[int, Field(description="Of the dense model.")]
    memory_bytes: Annotated[int, Field(description="Estimated peak, on the device that the model is on.")]


class DoesNotFit(SentinelError):
    """The experiment needs more memory than there is."""

    code = "does_not_fit"
    fault = Fault.RESOURCE
    next_step = (
        "Use a device with more memory, `model.dtype: bfloat16`, a smaller `heal.micro_batch_tokens`, "
        "`heal.gradient_checkpointing` or `heal.method: lora`."
    )

    def __init__(self, needs: Needs, memory_bytes: int) -> None:
        super().__init__(f"The run needs about {gigabytes(needs.memory_bytes)}; {gigabytes(memory_bytes)} are free.")


def gigabytes(size: int) -> str:
    """For people."""
    return f"{size / 1e9:.1f} GB"


def estimate(spec: Spec, shape: ModelShape) -> Needs:
    """The peak over the phases: the dense and the cut model are always there, pruning and healing come in turn."""
    weights = shape.parameters * BYTES_OF[spec.model.dtype]
    healing = _training(spec, spec.heal, shape, weights) if spec.heal else 0
    longest = _with_longest_windows(spec)
    peak = max(healing, _pruning(spec, shape), _evaluating(longest, shape), _stressing(longest, shape, weights))
    models = 2 + (EXCHANGE_COPIES if spec.grow else 0)
    memory_bytes = BASE_BYTES + models * weights + peak + min(peak, HOARDED_BYTES)
    # Numbers of a spec multiply to more than a database can hold, and than any device has.
    return Needs(parameters=shape.parameters, memory_bytes=min(memory_bytes, LARGEST_INTEGER))


def _training(spec: Spec, heal: Heal, shape: ModelShape, weights: int) -> int:
    """Gradients, the optimiser's state, and a micro-batch."""
    learnt = weights if heal.method == "full" else _adapters(shape, heal.lora.rank)
    activations = list(map(_activations, shape.layers))
    # Computed again, a layer leaves its input, and one at a time has all of its own.
    kept = max(activations) + len(activations) * shape.embedding[1] if heal.gradient_checkpointing else None
    tokens = min(heal.batch_tokens, heal.micro_batch_tokens)
    backward = _backward(spec, shape, tokens, LEARNING_COPIES[heal.loss], kept=kept)
    return TRAINING_COPIES * learnt + _copies_on_the_host(spec, heal, learnt, vocabulary=shape.embedding[0]) + backward


def _with_longest_windows(spec: Spec) -> Spec:
    """As if all texts had windows as long as the longest, those of a stress test among them."""
    longest = max(text.sequence_length for text in (spec.data, *spec.evaluate.domains.values()))
    return spec.model_copy(update={"data": spec.data.model_copy(update={"sequence_length": longest})})


def _stressing(spec: Spec, shape: ModelShape, weights: int) -> int:
    """A copy of a model that is scored and trained."""
    stress = spec.evaluate.stress
    if stress is None or not (stress.alternation or stress.damage):
        return 0
    return weights + max(_training(spec, stress.training(1), shape, weights), _scoring(spec, shape))


def _copies_on_the_host(spec: Spec, heal: Heal, learnt: int, *, vocabulary: int) -> int:
    """The weights to go back to, the best ones, and what is known of the dense model; nothing on a GPU."""
    if spec.device.startswith("cuda"):
        return 0
    weights = learnt * ((heal.stability_level >= 2) + (heal.evaluate_every is not None))
    # Each cycle's healing knows its own, and a controller may give all steps to one. With epochs nobody knows yet how
    # long the text is.
    healings = spec.prune.cycles if spec.controller else 1
    seen = heal.steps * heal.batch_tokens * healings if heal.epochs is None else 0
    return weights + seen * min(heal.teacher_top_k or 0, vocabulary) * TEACHER_BYTES


def _adapters(shape: ModelShape, rank: int) -> int:
    """Bytes of the adapters of every matrix in the layers, which are in float32."""
    return rank * sum(map(_activations, shape.layers)) * 4


def _backward(spec: Spec, shape: ModelShape, tokens: int, logit_copies: int, *, kept: int | None = None) -> int:
    """What a forward pass over so many tokens, but at least one window, keeps for the backward pass, and the logits.

    Args:
        spec: Types and lengths.
        shape: The model.
        tokens: Of the pass.
        logit_copies: In float32.
        kept: Numbers per token; None for all that the layers' matrices read and write.
    """
    numbers = sum(map(_activations, shape.layers)) if kept is None else kept
    activations = ACTIVATION_COPIES * numbers * BYTES_OF[spec.model.dtype]
    return max(spec.data.sequence_length, tokens) * (activations + logit_copies * shape.embedding[0] * 4)


def _evaluating(spec: Spec, shape: ModelShape) -> int:
    """Both models' logits of one forward pass, and what comparing one window makes of them."""
    length, (vocabulary, _) = spec.data.sequence_length, shape.embedding
    both = 2 * max(length, FORWARD_TOKENS) * BYTES_OF[spec.model.dtype]
    return (both + COMPARING_COPIES * length * 4) * vocabulary


def _activations(layer: tuple[Shape, ...]) -> int:
    """Numbers per token that the matrices of a layer read and write."""
    return sum(sum(shape) for shape in layer if len(shape) == 2)


def _pruning(spec: Spec, shape: ModelShape) -> int:
    """Gradients of scores, or the repair, whichever takes more."""
    return max(_scoring(spec, shape), _repairing(spec, shape))


def _scoring(spec: Spec, shape: ModelShape) -> int:
    tokens = min(spec.prune.calibration_sequences * spec.data.sequence_length, FORWARD_TOKENS)
    return _backward(spec, shape, tokens, LEARNING_COPIES["distill"])


def _repairing(spec: Spec, shape: ModelShape) -> int:
    """The largest layer's statistics, and for `reconstruction` what its fit holds."""
    widest = max(extent for layer in shape.layers for tensor in layer for extent in tensor)
    moments = MOMENT_COPIES * widest**2 * 8
    if spec.prune.compensation != "reconstruction":
        return moments
    stream = STREAM_COPIES * spec.prune.calibration_sequences * spec.data.sequence_length * shape.embedding[1] * 4
    fit = RECONSTRUCTION_COPIES * max(sum(map(count, layer)) for layer in shape.layers) * 4
    return stream + max(moments, fit)
