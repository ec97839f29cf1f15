"""Low-rank adapters (LoRA, Hu 2021) through peft, on every projection of the layers; merged at the end.

They are float32, whatever the weights are: they cost little, and what an optimiser adds to them is small.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.functional import cast_adapter_dtype
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sentinel.errors import CheckpointInvalid, SpecInvalid, TrainingDiverged
from sentinel.heal_spec import LowRank
from sentinel.models.families.base import Family


class Adapters:
    """The adapters of one model, whose own weights stay frozen; in force until `remove`.

    Args:
        model: Gets adapters in the place of its projections.
        family: Where its layers are.
        settings: Rank and scale.
        seed: Of their first weights. Their product starts at zero, so that the model's outputs do not change.

    Raises:
        SpecInvalid: The model has no projection left.
    """

    def __init__(self, model: PreTrainedModel, family: Family, settings: LowRank, *, seed: int) -> None:
        names = _projections(model, family)
        if not names:
            raise SpecInvalid("The cut left no projection to adapt: cut less, or use heal.method full or no healing.")
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            target_modules=names,
            fan_in_fan_out=isinstance(model.get_submodule(names[0]), Conv1D),
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(config, model)
        cast_adapter_dtype(model, "default")
        self._model = model
        self._settings = model.peft_config
        self._learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._places = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What is learnt, by its name in the model."""
        return self._learnt

    def factors(self, of_weights: Mapping[nn.Parameter, Tensor]) -> dict[nn.Parameter, Tensor]:
        """How much faster the adapters' slices learn, from the same of the weights that they are added to.

        What a group's outputs are made by is rows of an adapter's second matrix, what its inputs are read by columns
        of the first. Numbers that have no adapter, as those of norms, do not learn at all.
        """
        found: dict[nn.Parameter, Tensor] = {}
        for place in self._places.values():
            base = place.get_base_layer()
            if (factor := of_weights.get(base.weight)) is not None:
                factor = factor.T if isinstance(base, Conv1D) else factor
                matrices = place.lora_B if factor.shape[1] == 1 else place.lora_A
                found[matrices["default"].weight] = factor.float()
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `parameters` gave.

        Raises:
            CheckpointInvalid: The tensors are of other adapters.
        """
        if {name: p.shape for name, p in self._learnt.items()} != {name: t.shape for name, t in tensors.items()}:
            raise CheckpointInvalid("The saved adapters do not fit the model.")
        with torch.no_grad():
            for name, parameter in self._learnt.items():
                parameter.copy_(tensors[name])

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """The model as it was before, while the context lasts."""
        self.remove()
        try:
            yield
        finally:
            self._put(self._places)
            self._model.peft_config = self._settings

    def merge(self) -> None:
        """Add the adapters to the weights; they are still there, and do nothing more.

        Raises:
            TrainingDiverged: A sum is not finite, or too large for the type of the weights.
        """
        for name, place in self._places.items():
            try:
                place.merge(safe_merge=True)
            except ValueError as error:
                raise TrainingDiverged(f"With its adapter the weight of {name} is not finite.") from error

    def remove(self) -> None:
        """Take the adapters off; what they learnt is lost unless it was merged before."""
        self._put({name: place.get_base_layer() for name, place in self._places.items()})
        del self._model.peft_config

    def _put(self, modules: Mapping[str, nn.Module]) -> None:
        for name, module in modules.items():
            parent, _, attribute = name.rpartition(".")
            setattr(self._model.get_submodule(parent), attribute, module)


def _projections(model: PreTrainedModel, family: Family) -> list[str]:
    """Full names of the layers' matrices; those that lost all inputs or outputs have nothing to learn."""
    layers = set(family.layers(model))
    prefixes = tuple(f"{name}." for name, module in model.named_modules() if module in layers)
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(prefixes) and isinstance(module, (nn.Linear, Conv1D)) and module.weight.numel()
    ]
