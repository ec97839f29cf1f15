"""The validated description of an experiment. Torch-free.

One YAML or JSON document says the same for `sentinel run`, `sentinel submit` and
`POST /v1/jobs`. Unknown keys are refused; everything but `model` and `prune.target` has a default.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from sentinel.controller_spec import Controller
from sentinel.data_spec import BuiltinData, DataSource, UploadData, UploadId
from sentinel.errors import FieldError, SpecInvalid
from sentinel.grow_spec import Grow
from sentinel.heal_spec import Heal
from sentinel.plain import NotPlain, check, read_yaml
from sentinel.prune_spec import Prune, Section
from sentinel.stress_spec import Stress

Dtype = Literal["float32", "bfloat16", "float16"]
MOST_MISTAKES = 100


class HubModel(Section):
    """A model of the Hugging Face Hub, or of any endpoint that speaks its protocol (`HF_ENDPOINT`)."""

    source: Literal["hub"] = Field("hub", description="Where from.")
    id: str = Field(description="Repository id, e.g. `distilgpt2`.", pattern=r"^[\w.-]+(/[\w.-]+)?$", max_length=200)
    revision: str = Field("main", description="Branch, tag or commit.", pattern=r"^[\w./-]+$", max_length=200)
    dtype: Dtype = Field("float32", description="Data type the model is loaded and pruned in.")


class PathModel(Section):
    """A folder with config.json, safetensors weights and a tokenizer."""

    source: Literal["path"] = Field("path", description="Where from.")
    path: str = Field(description="The folder. On a service it must lie under an allowed root.", min_length=1)
    dtype: Dtype = Field("float32", description="Data type the model is loaded and pruned in.")


class BuiltinModel(Section):
    """A tiny model that ships with Sentinel."""

    source: Literal["builtin"] = Field("builtin", description="Where from.")
    id: Literal["gpt2", "llama"] = Field("gpt2", description="`gpt2` (multi-head) or `llama` (grouped-query).")
    dtype: Dtype = Field("float32", description="Data type the model is loaded and pruned in.")


class UploadModel(Section):
    """A model that was uploaded to the service that runs the job."""

    source: Literal["upload"] = Field("upload", description="Where from.")
    id: UploadId = Field(description="The upload, `upl_…`; one of kind `model`.")
    dtype: Dtype = Field("float32", description="Data type the model is loaded and pruned in.")


class JobModel(Section):
    """The checkpoint of a job of the same service that has ended, to go on with."""

    source: Literal["job"] = Field("job", description="Where from.")
    id: str = Field(description="The job, `job_…`.", pattern=r"^job_[0-9a-f]{32}$")
    dtype: Dtype = Field("float32", description="Data type the model is loaded and pruned in.")


class Evaluate(Section):
    """How the dense and the pruned model are measured."""

    tokens: int = Field(100_000, ge=8, description="Tokens of evaluation text, at most.")
    prompts: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(
        ["Once upon a time"], max_length=32, description="Texts that both models continue, side by side."
    )
    tasks: list[Annotated[str, Field(pattern=r"^[\w.+-]+$", max_length=200)]] = Field(
        [], max_length=100, description="Tasks of lm_eval that both models do; the extra `lm-eval` brings it."
    )
    task_files: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        [], max_length=100, description="YAML files of further tasks. They can run code; a service takes none."
    )
    task_limit: int | None = Field(None, ge=1, description="Documents per task, from its first; null for all.")
    stress: Stress | None = Field(
        None, description="Measure how well function survives: other texts, copying, forgetting, damage. null does not."
    )

    @property
    def domains(self) -> Mapping[str, DataSource]:
        """Texts beside the spec's `data`, by name."""
        return self.stress.domains if self.stress else {}


class Export(Section):
    """The form of the checkpoint."""

    form: Literal["auto", "stock", "remote_code", "masked"] = Field(
        "auto",
        description="`stock` loads with a class of transformers, `remote_code` brings its own modelling file, "
        "`masked` keeps the dense shapes with zeros; `auto` is stock where possible, else remote_code.",
    )
    dtype: Dtype | None = Field(None, description="Data type of the saved weights; null keeps `model.dtype`.")
    gguf: bool = Field(default=False, description="Also write `model.gguf` for llama.cpp; Llama-like models only.")


class Limits(Section):
    """When to stop whatever happens."""

    max_runtime_s: int = Field(24 * 3600, ge=1, description="Seconds one attempt may take.")


# What can be read from anywhere; `sentinel.locating` makes these of what only a service has.
ModelSource = Annotated[HubModel | PathModel | BuiltinModel, Field(discriminator="source")]


class Spec(Section):
    """One experiment."""

    name: str | None = Field(
        None, max_length=200, pattern=r"^[^\x00-\x1f]*$", description="For people; need not be unique; one line."
    )
    model: Annotated[ModelSource | UploadModel | JobModel, Field(discriminator="source")] = Field(
        description="The dense model; `builtin/gpt2`, a path or a hub id also say it."
    )
    data: Annotated[DataSource | UploadData, Field(discriminator="source")] = Field(
        default_factory=BuiltinData, description="Text to calibrate, heal and evaluate on."
    )
    prune: Prune = Field(description="What to remove.")
    heal: Heal | None = Field(default_factory=Heal, description="Fine-tuning after each cut; null for none.")
    grow: Grow | None = Field(None, description="Groups that come back between two cuts; null for none.")
    controller: Controller | None = Field(
        None, description="Who decides about each cycle; null follows `prune.schedule`."
    )
    evaluate: Evaluate = Field(default_factory=Evaluate, description="How to measure.")
    export: Export = Field(default_factory=Export, description="The form of the checkpoint.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="`auto` takes a GPU if any.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seeds sampling, data order and the random strategy.")
    limits: Limits = Field(default_factory=Limits, description="When to stop whatever happens.")

    @property
    def needs_network(self) -> bool:
        """Whether the model, a text or a task has to be fetched from the hub."""
        sources = (self.model.source, self.data.source, *(text.source for text in self.evaluate.domains.values()))
        return "hub" in sources or bool(self.evaluate.tasks)

    @model_validator(mode="after")
    def _isolates_everywhere(self) -> Self:
        alone = [name for name, text in self.evaluate.domains.items() if text.isolate_documents]
        if alone and not self.data.isolate_documents:
            raise ValueError(
                f"All texts are read in one way: set `isolate_documents` in `data`, not in the domain {alone[0]}."
            )
        return self

    @model_validator(mode="after")
    def _can_learn(self) -> Self:
        if self.model.dtype != "float16":
            return self
        if self.heal and self.heal.method == "full":
            raise ValueError(
                "`heal.method: full` learns weights of `model.dtype`, and AdamW's second moments vanish in float16: "
                "use bfloat16 or float32, or `heal.method: lora`, whose adapters are float32."
            )
        if self.evaluate.stress and (self.evaluate.stress.alternation or self.evaluate.stress.damage):
            raise ValueError(
                "`evaluate.stress` trains all weights of copies, which float16 cannot: use `model.dtype` bfloat16 or "
                "float32, or set its `alternation` and `damage` to null."
            )
        return self

    @model_validator(mode="after")
    def _can_grow(self) -> Self:
        if self.grow is None:
            return self
        if self.heal is None:
            raise ValueError("`grow` needs `heal`: what comes back has to learn.")
        if self.prune.cycles < 2:
            raise ValueError("`grow` needs `prune.cycles` of 2 or more: groups come back between two cuts.")
        if "layer" in self.prune.units:
            raise ValueError("`grow` brings back single groups; prune `attention` and `mlp`, not whole `layer`s.")
        if self.grow.strategy == "entropy_gap" and self.prune.units != ["attention"]:
            raise ValueError("`entropy_gap` looks at attention only; use another strategy to grow these units.")
        if self.export.form == "masked" and self.grow.initialization in ("split", "fresh"):
            raise ValueError(
                "`export.form: masked` has no place for groups that the dense model never had, as "
                f"`grow.initialization: {self.grow.initialization}` brings them: use another of either."
            )
        return self

    @model_validator(mode="after")
    def _can_decide(self) -> Self:
        if self.controller and (self.heal is None or self.prune.cycles < 2):
            raise ValueError("`controller` decides about cycles: it needs `heal`, and `prune.cycles` of 2 or more.")
        return self

    @model_validator(mode="before")
    @classmethod
    def _expand_model_name(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the user sent
        """Let `model: distilgpt2` say what the full section says."""
        if isinstance(values, dict) and isinstance(values.get("model"), str):
            return {**values, "model": model_section(values["model"])}
        return values


def model_section(name: str) -> dict[str, str]:
    """The `model` section that a short name stands for: `builtin/…`, a path, or a hub id."""
    if name.startswith("builtin/"):
        return {"source": "builtin", "id": name.removeprefix("builtin/")}
    if name.startswith((".", "/", "~")):
        return {"source": "path", "path": name}
    return {"source": "hub", "id": name}


def parse_spec(document: Any) -> Spec:  # noqa: ANN401 - whatever was parsed from JSON or YAML
    """Validate a document.

    Raises:
        SpecInvalid: With all field errors at once, 100 at most, each with its JSON pointer.
    """
    try:
        return Spec.model_validate(document)
    except ValidationError as invalid:
        errors = field_errors(invalid, document)
        raise SpecInvalid(mistakes("spec", errors), errors=errors) from invalid


def field_errors(invalid: ValidationError, document: Any) -> list[FieldError]:  # noqa: ANN401 - whatever was validated
    """The mistakes that Pydantic found in a document, the first 100: nobody mends more at a time."""
    found = invalid.errors(include_url=False, include_context=False, include_input=False)[:MOST_MISTAKES]
    return [FieldError(pointer=_pointer(e["loc"], document), code=e["type"], message=e["msg"]) for e in found]


def mistakes(where: str, errors: Sequence[FieldError]) -> str:
    """How many there are, in a sentence."""
    if len(errors) < MOST_MISTAKES:
        return f"The {where} has {len(errors)} mistake(s)."
    return f"The {where} has {MOST_MISTAKES} mistakes or more; these are the first."


def json_pointer(*parts: object) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _pointer(location: tuple[int | str, ...], document: Any) -> str:  # noqa: ANN401 - walks any JSON
    """Pointer of an error in what was sent; drops the tags that Pydantic inserts for tagged unions."""
    parts: list[int | str] = []
    here = document
    for i, key in enumerate(location):
        if isinstance(here, str):
            break  # a short name, which stands for the whole section
        if _is_in_union(location[:i]) and isinstance(here, dict) and here.get("source") == key:
            continue
        parts.append(key)
        here = here.get(key) if isinstance(here, dict) else None
    return json_pointer(*parts)


def _is_in_union(location: tuple[int | str, ...]) -> bool:
    """Whether a section there is one of several, which its `source` tells apart."""
    return location in (("model",), ("data",)) or location[:-1] == ("evaluate", "stress", "domains")


def load_document(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON spec file without validating it.

    Raises:
        SpecInvalid: The file is missing, is not YAML, is not a mapping, or has a value that no document has.
    """
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecInvalid(f"Cannot read the spec {path}: {error}") from error
    if not isinstance(document, dict):
        raise SpecInvalid(f"The spec {path} must be a mapping of fields to values.")
    return document


def plain_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document that was made in Python, as it can be sent.

    Raises:
        SpecInvalid: It has a value that no JSON text has.
    """
    plain = dict(document)
    try:
        check(plain)
    except NotPlain as error:
        raise SpecInvalid(f"The document cannot be sent: {error}.") from error
    return plain
