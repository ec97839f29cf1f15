"""Where the files lie that a spec names by an id: uploads and other jobs' checkpoints. Torch-free.

Knows which fields name some; whoever runs the spec has fetched them.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sentinel.data_spec import DataSource, PathData, UploadData
from sentinel.errors import SourceElsewhere
from sentinel.spec import JobModel, ModelSource, PathModel, Spec, UploadModel

MODEL, TRAIN, EVALUATION = "model", "train", "evaluation"
NOTHING: Mapping[str, Path] = MappingProxyType({})


class Located(NamedTuple):
    """The model and the text of a spec, as they can be read here."""

    model: ModelSource
    data: DataSource


def locate(spec: Spec, fetched: Mapping[str, Path] = NOTHING) -> Located:
    """Put local paths in the place of ids.

    Args:
        spec: Any spec.
        fetched: The folder of `model`, the files of `train` and `evaluation`, as far as the spec names them by ids.

    Raises:
        SourceElsewhere: Something was not fetched.
    """
    return Located(_model(spec.model, fetched), _data(spec.data, fetched))


def _model(model: ModelSource | UploadModel | JobModel, fetched: Mapping[str, Path]) -> ModelSource:
    if isinstance(model, UploadModel | JobModel):
        return PathModel(path=_path(MODEL, model.id, fetched), dtype=model.dtype)
    return model


def _data(data: DataSource | UploadData, fetched: Mapping[str, Path]) -> DataSource:
    if not isinstance(data, UploadData):
        return data
    named = {TRAIN: data.train, EVALUATION: data.evaluation}
    paths = {use: _path(use, upload, fetched) for use, upload in named.items() if upload is not None}
    return PathData(**data.model_dump(exclude={"source", *named}), **paths)


def _path(use: str, name: str, fetched: Mapping[str, Path]) -> str:
    if use not in fetched:
        raise SourceElsewhere(f"{name!r} is known to a service only, and this run has none.")
    return str(fetched[use])
