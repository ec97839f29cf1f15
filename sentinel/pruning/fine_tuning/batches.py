"""In which order training sees its windows, and where in it a run is."""

from collections.abc import Iterator

import torch
from torch import Tensor


class Batches(Iterator[Tensor]):
    """Endless batches of window numbers; every window once per epoch, the remainder of an epoch left out.

    The order depends on the seed and the sizes alone, so a position says everything.

    Args:
        num_windows: Windows there are, at least `size`.
        size: Windows per batch.
        seed: Seeds the order of every epoch.
        position: Batches that were taken already.
    """

    def __init__(self, num_windows: int, size: int, *, seed: int, position: int = 0) -> None:
        self._num_windows = num_windows
        self._size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._per_epoch = num_windows // size
        self.position = position
        for _ in range(position // self._per_epoch):
            self._shuffle()
        if position % self._per_epoch:
            self._order = self._shuffle()

    def __next__(self) -> Tensor:
        """int64 (size,), on the CPU."""
        at = self.position % self._per_epoch
        if at == 0:
            self._order = self._shuffle()
        self.position += 1
        return self._order[at * self._size : (at + 1) * self._size]

    def _shuffle(self) -> Tensor:
        return torch.randperm(self._num_windows, generator=self._generator)
