"""What a run leaves in its folder: checkpoints after its cycles and at its end; then pictures, card and manifest."""

from pathlib import Path

from sentinel.inputs import Inputs
from sentinel.manifest import Run, Sources, write_manifest
from sentinel.model_card import GGUF_FILE, PLOTS_FOLDER, write_card
from sentinel.models.optimized.export import Form, export
from sentinel.models.optimized.gguf import write_gguf
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.visualization.charts import charts_of_run
from sentinel.pruning.visualization.writing import write_charts
from sentinel.result import Result
from sentinel.spec import Spec
from sentinel.utils.checkpoints.cycle_state import CHECKPOINT_FOLDER
from sentinel.utils.series import Series


def write_checkpoint(spec: Spec, inputs: Inputs, module: PruningModule, directory: Path) -> Form:
    """Export the pruned model; the form that was used.

    Raises:
        ExportImpossible: As `export` says.
    """
    dtype = spec.export.dtype or spec.model.dtype
    form = export(
        module.model,
        inputs.tokenizer,
        family=inputs.family,
        form=spec.export.form,
        dtype=dtype,
        directory=directory,
        kept=module.kept,
    )
    if spec.export.gguf:
        write_gguf(module.model, inputs.tokenizer, dtype=dtype, path=directory / GGUF_FILE)
    return form


def write_unfinished(inputs: Inputs, module: PruningModule, directory: Path) -> None:
    """Export the model as it is between two cycles, bit for bit, in whatever form expresses it."""
    export(
        module.model,
        inputs.tokenizer,
        family=inputs.family,
        form="auto",
        dtype=str(module.model.dtype).removeprefix("torch."),
        directory=directory,
        kept=module.kept,
    )


def describe(
    spec: Spec,
    inputs: Inputs,
    module: PruningModule,
    result: Result,
    *,
    series: Series,
    sources: Sources,
    output: Path,
) -> None:
    """Draw the pictures, and put the card and the manifest beside the weights."""
    plots, checkpoint = output / PLOTS_FOLDER, output / CHECKPOINT_FOLDER
    run = Run(spec=spec, result=result, kept=module.kept, dense_counts=module.dense_counts)
    write_charts(charts_of_run(run, series), plots)
    uses = {use: getattr(inputs, use) for use in ("calibration", "held_out", "training", "evaluation")}
    for name, domain in inputs.domains.items():
        uses |= {f"{name}/training": domain.training, f"{name}/evaluation": domain.evaluation}
    windows = {use: tokens.cpu().numpy() for use, tokens in uses.items()}
    write_card(checkpoint, run, plots=plots)
    write_manifest(checkpoint, run, sources=sources, windows=windows, device=str(inputs.dense.device))
