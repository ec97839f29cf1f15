"""The built-in GPT-2, really cut, healed and measured: what a controller is told of it."""

import copy

import torch

from sentinel.controller.measurements import Measurements
from sentinel.heal_spec import Heal
from sentinel.inputs import load_inputs
from sentinel.models.evaluation import mean_loss
from sentinel.models.families.base import output_weight
from sentinel.models.hooks import inputs_of
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.strategies import entropy
from sentinel.spec import parse_spec

SPEC = parse_spec(
    {
        "model": "builtin/gpt2",
        "data": {"source": "builtin", "sequence_length": 64},
        "prune": {"target": {"sparsity": 0.75}, "calibration_sequences": 8},
        "evaluate": {"tokens": 2048},
        "device": "cpu",
    }
)
STEPS_PER_CYCLE = 20


class AtThreeQuarters(Observer):
    """Measures the held-out loss when the last quarter of a healing begins."""

    def __init__(self, model, windows, steps):
        self.model, self.windows, self.step, self.loss = model, windows, steps - steps // 4, None

    def stepped(self, step, loss):
        if step == self.step:
            self.loss = mean_loss(self.model, self.windows)


class Real:
    """A run of four cycles, of which some have been gone through by hand."""

    def __init__(self):
        self.inputs = load_inputs(SPEC, allowed_roots=None)
        self.module = PruningModule(copy.deepcopy(self.inputs.dense), self.inputs.family)
        self.dense_loss = self.loss = mean_loss(self.inputs.dense, self.inputs.evaluation)
        self.cycle, self.progress, self.cut_loss, self.slope = 1, 0.0, None, None

    def copy(self):
        other = copy.copy(self)
        other.module = PruningModule(
            copy.deepcopy(self.inputs.dense), self.inputs.family, kept=copy.deepcopy(self.module.kept)
        )
        other.module.model.load_state_dict(self.module.model.state_dict())
        return other

    def go_on(self, groups=None, *, progress=None, steps=0):
        """One cycle: layer → groups that are cut, by their index as the layer is now, and healing."""
        if groups:
            calibration = self.module.calibration(self.inputs.calibration, SPEC.prune, seed=0)
            self.module.cut(calibration, {"attention": groups}, compensation=None)
        self.progress = self.progress if progress is None else progress
        self.cut_loss = self.loss = mean_loss(self.module.model, self.inputs.evaluation)
        if steps:
            self._heal(steps)
        self.cycle += 1
        return self

    def _heal(self, steps):
        observer = AtThreeQuarters(self.module.model, self.inputs.evaluation, steps)
        tuner = FineTuner(heal=Heal(steps=steps, batch_tokens=512, learning_rate=1e-3), dense=self.inputs.dense)
        tuner.fine_tune(self.module.model, self.inputs.training, seed=1, observer=observer)
        self.loss = mean_loss(self.module.model, self.inputs.evaluation)
        self.slope = (observer.loss - self.loss) / (steps - observer.step)

    def measurements(self):
        kept, sites = self.module.kept["attention"], self._calibration.sites()
        energies = {site.layer: self._energies(site) for site in sites}
        entropies = {
            site.layer: -r.importance() for site, r in zip(sites, entropy.rank(self._calibration), strict=True)
        }
        return Measurements(
            cycle=self.cycle,
            cycles=4,
            progress=self.progress,
            steps_left=60,
            steps_per_cycle=STEPS_PER_CYCLE,
            planned=self.cycle / 4,
            dense_loss=self.dense_loss,
            loss=self.loss,
            cut_loss=self.cut_loss,
            healing_slope=self.slope,
            utilisation={l: dict(zip(kept[l], (e / e.sum()).tolist(), strict=True)) for l, e in energies.items()},
            entropy={l: dict(zip(kept[l], h.tolist(), strict=True)) for l, h in entropies.items()},
            removed={l: len(groups) for l, groups in self.module.removed["attention"].items()},
        )

    @property
    def _calibration(self):
        return self.module.calibration(self.inputs.calibration, SPEC.prune, seed=0)

    @torch.no_grad()
    def _energies(self, site):
        """E‖W_h x_h‖² of every group h, up to a factor."""
        seen = []
        with inputs_of(site.output, seen.append):
            self.module.model(input_ids=self.inputs.calibration, use_cache=False)
        outputs = torch.einsum(
            "bthd,ohd->btho",
            seen[0].unflatten(-1, (site.num_groups, -1)),
            output_weight(site).unflatten(-1, (site.num_groups, -1)),
        )
        return outputs.double().square().sum((0, 1, 3))
