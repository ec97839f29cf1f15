"""Fills a model that is there already with the weights of a checkpoint of the same shapes."""

from pathlib import Path

from transformers import PreTrainedModel

from sentinel.errors import CheckpointInvalid, SentinelError
from sentinel.models.loaders.load import load_model
from sentinel.spec import PathModel


def load_weights(checkpoint: Path, model: PreTrainedModel) -> None:
    """Copy a checkpoint's weights into `model`, bit for bit where it was written in the model's type.

    Raises:
        CheckpointInvalid: The checkpoint does not load, or its tensors have other names or shapes.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    try:
        saved = load_model(PathModel(path=str(checkpoint)), device="cpu", dtype=dtype)
        model.load_state_dict(saved.model.state_dict())
    except (SentinelError, RuntimeError) as error:
        raise CheckpointInvalid(f"The saved weights do not fit the model: {error}") from error
