"""How much memory an experiment will take at most, told from its spec and the headers of the weights. Torch-free.

An estimate: it counts the tensors that every phase holds at its peak, and not what allocators and libraries add beyond
`BASE_BYTES`.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sentinel.data.budget import FORWARD_TOKENS
from sentinel.errors import Fault, SentinelError
from sentinel.model_shape import ModelShape, Shape, count
from sentinel.spec import Spec

# A process with torch and transformers imported, or a CUDA context with its libraries.
BASE_BYTES = 600 * 1024**2
BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}
# The gradient and AdamW's two moments, each like the weights.
TRAINING_COPIES = 3
# Of the logits, in float32: both models', their log-softmaxes, and the gradients of one of them.
LOGIT_COPIES = 6
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
    next_step = "Use a device with more memory, `model.dtype: bfloat16`, or a smaller `heal.batch_tokens`."

    def __init__(self, needs: Needs, memory_bytes: int) -> None:
        super().__init__(f"The run needs about {gigabytes(needs.memory_bytes)}; {gigabytes(memory_bytes)} are free.")


def gigabytes(size: int) -> str:
    """For people."""
    return f"{size / 1e9:.1f} GB"


def estimate(spec: Spec, shape: ModelShape) -> Needs:
    """The peak over the phases: the dense and the cut model are always there, pruning and healing come in turn."""
    weights = shape.parameters * BYTES_OF[spec.model.dtype]
    peak = max(_healing(spec, shape, weights), _pruning(spec, shape))
    return Needs(parameters=shape.parameters, memory_bytes=BASE_BYTES + 2 * weights + peak)


def _healing(spec: Spec, shape: ModelShape, weights: int) -> int:
    """Gradients, the optimiser's state, and what a forward pass over one micro-batch keeps for the backward pass."""
    length, (vocabulary, _) = spec.data.sequence_length, shape.embedding
    if spec.heal is None:
        return max(length, FORWARD_TOKENS) * LOGIT_COPIES * vocabulary * 4
    tokens = max(length, min(spec.heal.batch_tokens, FORWARD_TOKENS))
    kept = sum(map(_activations, shape.layers)) * BYTES_OF[spec.model.dtype]
    return TRAINING_COPIES * weights + tokens * (kept + LOGIT_COPIES * vocabulary * 4)


def _activations(layer: tuple[Shape, ...]) -> int:
    """Numbers per token that the matrices of a layer read and write."""
    return sum(sum(shape) for shape in layer if len(shape) == 2)


def _pruning(spec: Spec, shape: ModelShape) -> int:
    """The largest layer's statistics, and for `reconstruction` what its fit holds."""
    widest = max(extent for layer in shape.layers for tensor in layer for extent in tensor)
    moments = MOMENT_COPIES * widest**2 * 8
    if spec.prune.compensation != "reconstruction":
        return moments
    stream = STREAM_COPIES * spec.prune.calibration_sequences * spec.data.sequence_length * shape.embedding[1] * 4
    fit = RECONSTRUCTION_COPIES * max(sum(map(count, layer)) for layer in shape.layers) * 4
    return stream + max(moments, fit)
