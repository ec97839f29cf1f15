"""How a group's slices of a module are found, cut out and put back.

Knows no architecture: a family names the modules and how many of their features each group owns.

Legend: a projection maps `in` features to `out` features; its weight is read as (out x in)
whatever way its class stores it.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

Side = Literal["in", "out"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One module of which every group owns a slice.

    Attributes:
        module: `nn.Linear`, `Conv1D`, or a norm with one weight per feature or head.
        side: The features that are sliced: what goes `in` or what comes `out`.
        widths: Features per group, once for each block that follows the other along the side; a projection
            that holds all queries, then all keys, then all values has three blocks.
    """

    module: nn.Module
    side: Side
    widths: tuple[int, ...]

    def features(self, groups: Sequence[int], *, num_groups: int) -> Tensor:
        """Indices of the groups' features along the side, in order, for a layer of `num_groups` groups."""
        # On the CPU even where models are being built on the meta device.
        chosen = torch.tensor(groups, dtype=torch.long, device="cpu")[:, None]
        blocks, start = [], 0
        for width in self.widths:
            blocks.append((start + chosen * width + torch.arange(width, device="cpu")).flatten())
            start += num_groups * width
        return torch.cat(blocks)

    def tensors(self) -> Iterable[tuple[str, nn.Parameter, int]]:
        """Name, value and sliced dimension of each parameter that the groups share."""
        yield "weight", parameter(self.module, "weight"), self.weight_dim
        if self.side == "out" and getattr(self.module, "bias", None) is not None:
            yield "bias", parameter(self.module, "bias"), 0

    @property
    def weight_dim(self) -> int:
        """Dimension of the stored weight that runs along the side."""
        stored_out_first = not isinstance(self.module, Conv1D)
        return 0 if (self.side == "out") == stored_out_first else 1

    def size(self) -> int:
        """Numbers that the groups own together."""
        return sum(value.numel() for _, value, _ in self.tensors())

    def weight_of(self, group: int, *, num_groups: int) -> Tensor:
        """The group's slice of the weight; a copy, detached."""
        weight = parameter(self.module, "weight").detach()
        features = self.features([group], num_groups=num_groups)
        return weight.index_select(self.weight_dim, features.to(weight.device))

    def fits(self, piece: Tensor) -> bool:
        """Whether a group of this part could have this slice of the weight."""
        shape = list(parameter(self.module, "weight").shape)
        shape[self.weight_dim] = sum(self.widths)
        return list(piece.shape) == shape

    def cut(self, keep: Sequence[int], *, num_groups: int) -> None:
        """Keep only the named groups, in the order given, one named twice twice; parameters are replaced."""
        features = self.features(keep, num_groups=num_groups)
        for name, old, dim in list(self.tensors()):
            kept = old.detach().index_select(dim, features.to(old.device))
            setattr(self.module, name, nn.Parameter(kept, requires_grad=old.requires_grad))
        self._declare_size(len(features))

    def widened(self, kept: Sequence[int], *, num_groups: int) -> dict[str, Tensor]:
        """The tensors at dense size, the groups at the places `kept`, zeros elsewhere; the model is left alone."""
        features = self.features(kept, num_groups=num_groups)
        widened = {}
        for name, value, dim in self.tensors():
            shape = list(value.shape)
            shape[dim] = sum(self.widths) * num_groups
            widened[name] = value.new_zeros(shape).index_copy(dim, features.to(value.device), value.detach())
        return widened

    def _declare_size(self, size: int) -> None:
        """Let a projection's printed sizes tell the truth; its forward pass reads only the weight (and `nf`)."""
        if isinstance(self.module, Conv1D):
            setattr(self.module, "nx" if self.side == "in" else "nf", size)
        elif isinstance(self.module, nn.Linear):
            setattr(self.module, f"{self.side}_features", size)


class ListPart(Part):
    """An `nn.ModuleList` of which every group owns whole entries, as many as its width."""

    @property
    def entries(self) -> list[nn.Module]:
        """What is in the list now."""
        assert isinstance(self.module, nn.ModuleList)  # noqa: S101 - what this class is for
        return list(self.module)

    def tensors(self) -> Iterable[tuple[str, nn.Parameter, int]]:
        """None that the groups share: an entry belongs to one group."""
        return ()

    def size(self) -> int:
        """Numbers in all entries."""
        return sum(value.numel() for entry in self.entries for value in entry.parameters())

    def weight_of(self, group: int, *, num_groups: int) -> Tensor:
        """The weights of the group's entries, one after the other; a copy, detached."""
        chosen = self.features([group], num_groups=num_groups)
        return torch.cat([parameter(self.entries[index], "weight").detach() for index in chosen])

    def fits(self, piece: Tensor) -> bool:
        """Whether a group could have these weights; a list without entries does not say what they look like."""
        numbers = sum(self.widths) * parameter(self.entries[0], "weight").numel() if self.entries else piece.numel()
        return piece.numel() == numbers

    def cut(self, keep: Sequence[int], *, num_groups: int) -> None:
        """Keep only the entries of the named groups, in the order given; a second time they are copies."""
        entries: list[nn.Module] = []
        for index in self.features(keep, num_groups=num_groups):
            entry = self.entries[index]
            entries.append(copy.deepcopy(entry) if entry in entries else entry)
        for name in list(self.module._modules):
            delattr(self.module, name)
        for index, entry in enumerate(entries):
            self.module.add_module(str(index), entry)

    def widened(self, kept: Sequence[int], *, num_groups: int) -> dict[str, Tensor]:
        """The entries' tensors under their dense names; zeros for entries that are gone, unless all of them are."""
        places = self.features(kept, num_groups=num_groups).tolist()
        widened = {}
        for place in range(sum(self.widths) * num_groups) if places else ():
            entry = self.entries[places.index(place) if place in places else 0]
            for name, value in entry.named_parameters():
                widened[f"{place}.{name}"] = value.detach() if place in places else torch.zeros_like(value)
        return widened


def num_groups_of(parts: Sequence[Part]) -> int:
    """Groups of a layer, read off its output projection, the last part."""
    output = parts[-1]
    return parameter(output.module, "weight").shape[output.weight_dim] // sum(output.widths)


def cut_groups(parts: Sequence[Part], keep: Sequence[int]) -> None:
    """Keep only the named groups in every part, in the order given; one that is named twice is there twice.

    Raises:
        ValueError: `keep` names a group that is not there. Nothing was cut.
    """
    num_groups = num_groups_of(parts)
    if not set(keep) <= set(range(num_groups)):
        raise ValueError(f"Cannot keep groups {list(keep)} of a layer with {num_groups}.")
    for part in parts:
        part.cut(keep, num_groups=num_groups)


def parameter(module: nn.Module, name: str) -> nn.Parameter:
    """The module's own parameter of this name.

    Raises:
        TypeError: It is something else.
    """
    value = getattr(module, name)
    if not isinstance(value, nn.Parameter):
        raise TypeError(f"{type(module).__name__}.{name} is not a plain parameter.")
    return value
