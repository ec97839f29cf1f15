"""Request body → checked spec: gather every mistake at once.

Knows which folders a spec may name; loads no model. Of the model that a checked spec names it reads the config and the
headers of the weights, and no more.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, Request

from api.jobs.parsing import PARSERS, Unparsable, parse
from api.jobs.sources import Sources
from api.refusals import MediaTypeUnsupported, SpecModelTooLarge, SpecPathsNotAllowed
from api.resources import Shared
from api.settings import Settings
from sentinel.errors import FieldError, ModelTooLarge, PathNotAllowed, SentinelError, SpecInvalid
from sentinel.model_limits import check_limits
from sentinel.model_shape import ModelShape
from sentinel.needs import Needs, estimate
from sentinel.paths import BUILTIN_MODELS, check_folder_roots, check_roots, check_task_files
from sentinel.spec import (
    BuiltinModel,
    HubModel,
    JobModel,
    ModelSource,
    PathModel,
    Spec,
    UploadModel,
    json_pointer,
    mistakes,
    model_section,
    parse_spec,
)

_Check = Callable[[Sequence[Path]], object]
EXAMPLE = {"name": "smaller", "model": {"source": "builtin", "id": "llama"}, "prune": {"target": {"sparsity": 0.25}}}


# Without a body parameter FastAPI documents none.
def request_body(schema: str, **content: Any) -> dict[str, Any]:  # noqa: ANN401 - OpenAPI's own
    """Document a body of `Document`, for OpenAPI: the name of its schema, and what else is to be said of it."""
    described = {"schema": {"$ref": f"#/components/schemas/{schema}"}, **content}
    return {"requestBody": {"required": True, "content": dict.fromkeys(PARSERS, described)}}


async def _read(request: Request, resources: Shared) -> Any:  # noqa: ANN401 - whatever the user sent
    """The parsed body.

    Raises:
        MediaTypeUnsupported: It is not declared as JSON or YAML.
        SpecInvalid: It cannot be parsed.
    """
    declared = request.headers.get("content-type", "")
    media_type = declared.partition(";")[0].strip().lower()
    if media_type not in PARSERS:
        raise MediaTypeUnsupported(f"The body is declared as {declared or 'nothing'!r}.")
    try:
        return await to_thread.run_sync(parse, media_type, await request.body(), limiter=resources.parsing)
    except Unparsable as error:
        mistake = FieldError(pointer="", code="document_unparsable", message=str(error))
        raise SpecInvalid("The body is not a JSON or YAML document.", errors=[mistake]) from error


Document = Annotated[Any, Depends(_read)]


def check(document: Any, *, roots: Sequence[Path]) -> Spec:  # noqa: ANN401 - whatever was parsed
    """Validate a document against the spec and the folders it may name.

    Raises:
        SpecInvalid: With every mistake, paths included.
        SpecPathsNotAllowed: Nothing is wrong but the paths.
    """
    refused = [error for pointer, check_with in _checks(document) for error in _refused(pointer, check_with, roots)]
    unfit = list(_unfit_for_a_service(document))
    try:
        spec = parse_spec(document)
    except SpecInvalid as invalid:
        raise _all_of(*invalid.errors, *unfit, *refused) from invalid
    if unfit:
        raise _all_of(*unfit, *refused)
    if refused:
        raise SpecPathsNotAllowed(refused[0].message, errors=refused)
    return spec


def _all_of(*errors: FieldError) -> SpecInvalid:
    return SpecInvalid(mistakes("spec", errors), errors=errors)


def _unfit_for_a_service(document: Any) -> Iterator[FieldError]:  # noqa: ANN401 - valid or not
    """What means something on one's own machine only."""
    device = document.get("device") if isinstance(document, dict) else None
    if isinstance(device, str) and device.startswith("cuda:"):
        message = "A service chooses the GPU itself; ask for `cuda` or `auto`."
        yield FieldError(pointer="/device", code="device_index", message=message)


def _paths(document: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - valid or not
    """Pointer and value of every local path that the document names."""
    if not isinstance(document, dict):
        return
    model = document.get("model")
    if isinstance(model, str) and (path := model_section(model).get("path")):
        yield "/model", path
    domains = _section(document, "evaluate", "stress", "domains")
    sections: dict[tuple[Any, ...], Any] = {("model",): model, ("data",): document.get("data")}
    sections |= {("evaluate", "stress", "domains", name): text for name, text in domains.items()}
    for where, section in sections.items():
        for key in ("path", "train", "evaluation"):
            if isinstance(section, dict) and section.get("source") == "path" and isinstance(section.get(key), str):
                yield json_pointer(*where, key), section[key]


def _section(document: Any, *keys: str) -> dict[Any, Any]:  # noqa: ANN401 - valid or not
    """What is found down these keys; empty where one is not there."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _checks(document: Any) -> Iterator[tuple[str, _Check]]:  # noqa: ANN401 - valid or not
    """Pointer of everything that names files, and what is to be asked of it."""
    for pointer, path in _paths(document):
        yield pointer, partial(check_roots, path)
    evaluate = document.get("evaluate") if isinstance(document, dict) else None
    if isinstance(evaluate, dict) and evaluate.get("task_files"):
        yield "/evaluate/task_files", partial(check_task_files, evaluate["task_files"])


def _refused(pointer: str, check_with: _Check, roots: Sequence[Path]) -> Iterator[FieldError]:
    try:
        check_with(roots)
    except PathNotAllowed as error:
        yield FieldError(pointer=pointer, code=error.code, message=error.message)


def needs_of(spec: Spec, *, settings: Settings, sources: Sources) -> Needs | None:
    """What an experiment will take, if its model lies here or in the storage; a worker finds out about any other.

    Raises:
        SpecModelTooLarge: The model is beyond the limits.
    """
    shape = shape_of(spec.model, settings=settings, sources=sources)
    return None if shape is None else estimate(spec, shape)


def shape_of(model: ModelSource | UploadModel | JobModel, *, settings: Settings, sources: Sources) -> ModelShape | None:
    """What the headers of a model's weights say, if they lie here or in the storage and can be read.

    Raises:
        SpecModelTooLarge: The model is beyond the limits.
    """
    try:
        match model:
            case BuiltinModel(id=name):
                return check_limits(BUILTIN_MODELS / name, settings.model_limits)
            case PathModel(path=path):
                return check_limits(check_folder_roots(path, settings.model_roots), settings.model_limits)
            case UploadModel() | JobModel():
                return sources.shape(model)
            case HubModel():
                return None
    except ModelTooLarge as too_large:
        raise SpecModelTooLarge(too_large) from too_large
    except (SentinelError, OSError):
        return None


def fingerprint(document: Any) -> str:  # noqa: ANN401 - a document that `check` has passed
    """Hash of what a document says, whatever its spacing, key order or format."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()
