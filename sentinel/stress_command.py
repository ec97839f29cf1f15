"""`sentinel stress CHECKPOINT`: what `evaluate.stress` measures, of a checkpoint that is there already."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from sentinel.access import AsJson
from sentinel.arguments import SPEC_ARGUMENTS
from sentinel.display import stress_tables
from sentinel.errors import ModelNotFound, SpecInvalid
from sentinel.outcomes import output as console
from sentinel.spec import Spec, model_section, parse_spec
from sentinel.spec_flags import set_flags

if TYPE_CHECKING:  # torch comes with it
    from sentinel.stress_result import StressResult

# Of the spec in a manifest, what decides which text a test may see; not where the run was, nor what it wrote. Growth
# and controllers keep text out of healing to decide by.
_TAKEN = ("model", "data", "prune", "heal", "grow", "controller", "seed")
# Where a checkpoint says nothing of how it was made.
_UNKNOWN: dict[str, Any] = {"data": {"source": "builtin"}, "prune": {"target": {"sparsity": 0}}, "heal": None}
# Sources that a manifest cannot lead back to.
_ELSEWHERE = ("path", "upload", "job")
_TEXT_ADVICE = "Name it with --data.source path --data.train … --data.evaluation …."


def register(app: typer.Typer) -> None:
    """Add the command of this module to the `sentinel` command."""
    app.command(**SPEC_ARGUMENTS)(stress)


def stress(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Folder of a pruned model.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="Fields of a spec as flags, e.g. --evaluate.stress.tokens 4096, over what the manifest says.",
            metavar="[--FIELD VALUE]...",
        ),
    ] = None,
    *,
    dense: Annotated[
        str | None,
        typer.Option(
            help="The model to compare with: a folder (./model), a hub id, or builtin/llama.",
            show_default="the one that the manifest names",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, writable=True, help="File for the result as JSON.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well a pruned model's function survives, beside the dense model's under the same."""
    spec = spec_of(checkpoint, dense=dense, arguments=arguments or [])
    if output is not None:  # not after the minutes of measuring
        output.parent.mkdir(parents=True, exist_ok=True)
    # Imported late: torch takes seconds, and a wrong spec should answer at once.
    from transformers.utils import logging

    from sentinel.stress.of_checkpoint import stress_checkpoint

    logging.disable_progress_bar()
    progress = Console(stderr=True)
    found = stress_checkpoint(spec, checkpoint, tell=lambda text: progress.print(text, markup=False, highlight=False))
    _show(found, as_json=as_json)
    if output is not None:
        output.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _show(found: "StressResult", *, as_json: bool) -> None:
    if as_json:
        print(found.model_dump_json())
        return
    for table in stress_tables(found):
        console().print(table)


def spec_of(checkpoint: Path, *, dense: str | None, arguments: list[str]) -> Spec:
    """The spec that a checkpoint was made by, as far as its manifest tells, with `evaluate.stress`.

    So that what was calibrated and healed on is not what is measured on.

    Args:
        checkpoint: The folder.
        dense: Name of the dense model; None for the one in the manifest.
        arguments: Flags, which win.

    Raises:
        ModelNotFound: There is no such folder.
        SpecInvalid: The manifest is damaged, or does not say where the model or the text lies and no flag does; or the
            outcome is not a valid spec.
    """
    document = _known(checkpoint)
    given: dict[str, Any] = {}
    set_flags(given, arguments)
    if dense is not None:
        document["model"] = model_section(dense) | _of(document.get("model", {}), "dtype")
    else:
        _take_model(document, given.get("model", {}))
    text = given.get("data", {})
    if not isinstance(text, dict):
        raise SpecInvalid(f"--data takes no value, only its fields do. {_TEXT_ADVICE}")
    if text.get("source", document["data"]["source"]) != document["data"]["source"]:
        document["data"] = {}
    elif "train" not in text:
        _check_findable(document["data"], "text", _TEXT_ADVICE)
    named = _without_places(document)
    set_flags(named, arguments)
    _check_domains(named)
    return parse_spec(named)


def _take_model(document: dict[str, Any], given: Any) -> None:  # noqa: ANN401 - of flags
    """Leave of the document's model what flags may build on, unless they name another themselves."""
    if not isinstance(given, dict):  # a name for all of it
        return
    known = document.get("model")
    if known and given.get("source", known["source"]) != known["source"]:
        document["model"] = _of(known, "dtype")
    elif not given.keys() & {"id", "path"}:
        _check_findable(known, "dense model", "Name it with --dense.")


def _known(checkpoint: Path) -> dict[str, Any]:
    """What the manifest tells of the spec, as a document."""
    from sentinel.manifest import MANIFEST_FILE, Manifest  # with numpy, which `--help` can do without

    if not checkpoint.is_dir():
        raise ModelNotFound(f"There is no folder {checkpoint}.")
    file = checkpoint / MANIFEST_FILE
    if not file.exists():
        return {**_UNKNOWN, "evaluate": {"stress": {}}}
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except ValidationError as invalid:
        raise SpecInvalid(f"{file} is damaged, or of another version: {invalid.errors()[0]['msg']}.") from invalid
    spec = _of(manifest.spec, *_TAKEN)
    for section, commit in (("model", manifest.sources.commit), ("data", manifest.sources.text_commit)):
        if commit:
            spec[section] = {**spec[section], "revision": commit}
    evaluate = manifest.spec["evaluate"]
    stress = evaluate.get("stress") or {}
    for name, commit in manifest.sources.domain_commits.items():
        stress["domains"][name]["revision"] = commit
    return {**spec, "evaluate": {**_of(evaluate, "tokens"), "stress": stress}}


def _of(section: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: section[key] for key in keys if key in section}


def _without_places(document: dict[str, Any]) -> dict[str, Any]:
    """The document, but that domains of local files do not name them: a manifest does not say where they lie."""
    stress = document["evaluate"]["stress"]
    texts = {
        name: {key: value for key, value in text.items() if text["source"] != "path" or key != "train"}
        for name, text in stress.get("domains", {}).items()
    }
    domains = {"domains": texts} if texts else {}
    return document | {"evaluate": document["evaluate"] | {"stress": {**stress, **domains}}}


def _check_domains(document: Mapping[str, Any]) -> None:
    """Refuse domains of local files that no flag names; whatever else is wrong is told by the spec."""
    section: Any = document
    for key in ("evaluate", "stress", "domains"):
        section = section.get(key) if isinstance(section, dict) else None
    for name, text in (section if isinstance(section, dict) else {}).items():
        if isinstance(text, dict) and text.get("source") == "path" and "train" not in text:
            raise SpecInvalid(
                f"The checkpoint does not say where the text of the domain {name} lies. "
                f"Name it with --evaluate.stress.domains.{name}.train …."
            )


def _check_findable(section: Any, what: str, advice: str) -> None:  # noqa: ANN401 - of a document
    if section is None:
        raise SpecInvalid(f"The checkpoint does not say what its {what} is. {advice}")
    if section["source"] in _ELSEWHERE:
        raise SpecInvalid(f"The checkpoint's {what} was of source {section['source']}, which says no place. {advice}")
