"""Small Python programs without end and without files: a text as unlike the stories as possible.

Each is one function and some calls of it, with what they print in a comment: to foretell that, one has to look up
arguments and to calculate. A seed decides every character; a hash of the program's own text decides, as of a story,
whether it is for training or for evaluation. Nothing of it is ever executed.
"""

import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from sentinel.data.stories import Split, split_of

VERBS: Final = ("add", "find", "count", "scale", "merge", "check", "move", "fill", "pack", "clip", "rank", "sum")
NOUNS: Final = ("rows", "cells", "bytes", "nodes", "keys", "items", "pages", "files", "links", "slots", "steps", "bits")
NAMES: Final = ("left", "right", "size", "width", "depth", "offset", "rate", "index", "limit", "value", "start", "end")
RESULTS: Final = ("total", "result", "output", "answer")
OPERATIONS: Final[dict[str, Callable[[int, int], int]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
_CALLS = 3


def generate_programs(*, seed: int) -> Iterator[str]:
    """Write programs without end, each some lines of text; the same seed writes the same programs."""
    rng = random.Random(seed)  # noqa: S311 - programs are no secret
    while True:
        yield "\n".join(_lines(rng))


def split_programs(split: Split, count: int, *, seed: int = 0) -> Iterator[str]:
    """Write `count` programs of one split; no program of one split ever occurs in the other."""
    return islice((program for program in generate_programs(seed=seed) if split_of(program) == split), count)


def _lines(rng: random.Random) -> Iterator[str]:
    name = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
    first, second = rng.sample(NAMES, 2)
    result, sign = rng.choice(RESULTS), rng.choice(list(OPERATIONS))
    bound, step, less = rng.randint(2, 20), rng.randint(1, 9), rng.choice((True, False))
    condition = f"{result} {'<' if less else '>'} {bound}"
    yield f"def {name}({first}, {second}):"
    yield f"    {result} = {first} {sign} {second}"
    yield f"    if {condition}:"
    yield f"        {result} = {result} + {step}"
    yield f"    return {result}"
    for _ in range(_CALLS):
        a, b = rng.randint(0, 9), rng.randint(0, 9)
        value = OPERATIONS[sign](a, b)
        if (value < bound) if less else (value > bound):
            value += step
        yield f"print({name}({a}, {b}))  # {value}"
