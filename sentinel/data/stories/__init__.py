"""Small English stories from a grammar, without end and without files.

A seed decides every word. Whether a story is for training or for evaluation is decided by a hash of
its own text, so no story can be in both. Knows nothing of tokens or models. The models that ship
with Sentinel were trained on these very texts: whoever changes a word here trains them again
(`scripts/train_builtin_models.py`).
"""

import hashlib
import random
from collections.abc import Iterator
from itertools import islice
from typing import Final, Literal

from sentinel.data.stories import adventures, plots
from sentinel.data.stories.grammar import Teller

Split = Literal["train", "evaluation"]

PLOTS: Final = (
    plots.lost_and_found, plots.sharing, plots.birthday, plots.hide_and_seek, plots.broken, plots.get_well,
    plots.counting, plots.where_is_it, plots.contest, plots.party, adventures.bad_weather, adventures.rescue,
    adventures.strange_noise, adventures.shopping, adventures.journey, adventures.garden, adventures.lost_pet,
)  # fmt: skip
_EVALUATION_BYTES = 26  # of 256 values of the hash's first byte: one story in ten


def generate_stories(*, seed: int) -> Iterator[str]:
    """Tell stories without end, each one line of text; the same seed tells the same stories."""
    rng = random.Random(seed)  # noqa: S311 - stories are no secret
    while True:
        teller = Teller(rng)
        rng.choice(PLOTS)(teller)
        yield teller.text()


def split_of(story: str) -> Split:
    """The split that a story belongs to, by its text alone."""
    first_byte = hashlib.sha256(story.encode()).digest()[0]
    return "evaluation" if first_byte < _EVALUATION_BYTES else "train"


def split_stories(split: Split, count: int, *, seed: int = 0) -> Iterator[str]:
    """Tell `count` stories of one split; no story of one split ever occurs in the other."""
    return islice((story for story in generate_stories(seed=seed) if split_of(story) == split), count)
