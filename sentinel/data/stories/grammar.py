"""Agreement: people, things, animals and places that know their own articles, pronouns and verbs.

Templates name these by attribute, e.g. `{hero.They} lost {hero.their} {thing}.`; the teller fills
them in. Knows English agreement; knows no plot.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sentinel.data.stories import words

_Item = TypeVar("_Item")
_SENTENCE_START = re.compile(r"(?:^|[.!?] |\.\" |(?<![^ ])\")[a-z]")
_PRONOUNS = {"she": ("her", "her", "girl"), "he": ("him", "his", "boy")}


def with_article(phrase: str) -> str:
    """The phrase after `a`, or `an` before a vowel."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with a name and a gender, said by the subject pronoun; reads as the name."""

    name: str
    they: str

    def __str__(self) -> str:
        return self.name

    @property
    def them(self) -> str:
        """The pronoun as an object."""
        return _PRONOUNS[self.they][0]

    @property
    def their(self) -> str:
        """The possessive."""
        return _PRONOUNS[self.they][1]

    @property
    def child(self) -> str:
        """`girl` or `boy`."""
        return _PRONOUNS[self.they][2]

    @property
    def They(self) -> str:  # noqa: N802 - capitalised as it stands in a template
        """The pronoun at the start of a sentence."""
        return self.they.capitalize()

    @property
    def Their(self) -> str:  # noqa: N802 - capitalised as it stands in a template
        """The possessive at the start of a sentence."""
        return self.their.capitalize()


@dataclass(frozen=True, slots=True)
class Thing:
    """An object with its adjectives and its number; reads as e.g. `big red ball`."""

    noun: str
    adjectives: str
    plural: bool

    def __str__(self) -> str:
        return f"{self.adjectives} {self.noun}"

    @property
    def a(self) -> str:
        """With the indefinite article."""
        return f"some {self}" if self.plural else with_article(str(self))

    @property
    def it(self) -> str:
        """The pronoun as a subject."""
        return "they" if self.plural else "it"

    @property
    def It(self) -> str:  # noqa: N802 - capitalised as it stands in a template
        """The pronoun at the start of a sentence."""
        return self.it.capitalize()

    @property
    def them(self) -> str:
        """The pronoun as an object."""
        return "them" if self.plural else "it"

    @property
    def was(self) -> str:
        """`to be` in the past."""
        return "were" if self.plural else "was"

    @property
    def be(self) -> str:
        """`to be` in the present."""
        return "are" if self.plural else "is"

    @property
    def this(self) -> str:
        """The demonstrative."""
        return "these" if self.plural else "this"


@dataclass(frozen=True, slots=True)
class Animal:
    """An animal, how it sounds and how it moves."""

    kind: str
    sounded: str
    moved: str

    def __str__(self) -> str:
        return self.kind

    @property
    def a(self) -> str:
        """With the indefinite article."""
        return with_article(self.kind)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is; reads as e.g. `under the bed`."""

    preposition: str
    noun: str

    def __str__(self) -> str:
        return f"{self.preposition} {self.noun}"


class Teller:
    """Draws the cast and the words of one story and collects its sentences."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._cast: dict[str, object] = {}
        self._sentences: list[str] = []

    def cast(self, **roles: object) -> None:
        """Give names, by which templates refer to them, to what the story is about."""
        self._cast.update(roles)

    def say(self, *variants: str) -> None:
        """Add one of the templates, filled in with the cast."""
        self._sentences.append(self.one(variants).format_map(self._cast))

    def maybe(self, *variants: str) -> None:
        """Add one of the templates half of the time."""
        if self.chance(0.5):
            self.say(*variants)

    def text(self) -> str:
        """The story so far, with every sentence capitalised."""
        return _SENTENCE_START.sub(lambda start: start[0][:-1] + start[0][-1].upper(), " ".join(self._sentences))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._rng.random() < probability

    def number(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return self._rng.randint(low, high)

    def one(self, pool: Sequence[_Item]) -> _Item:
        """Any item."""
        return self._rng.choice(pool)

    def some(self, pool: Sequence[_Item], count: int) -> list[_Item]:
        """Distinct items in any order."""
        return self._rng.sample(pool, count)

    def children(self, count: int) -> list[Person]:
        """Children with distinct names."""
        names = self.some(words.GIRLS + words.BOYS, count)
        return [Person(name, "she" if name in words.GIRLS else "he") for name in names]

    def ranked(self, *roles: str) -> list[Any]:
        """What these roles stand for, in any order."""
        return [self._cast[role] for role in self.some(roles, len(roles))]

    def adult(self) -> Person:
        """A grown-up."""
        name = self.one(words.WOMEN + words.MEN)
        return Person(name, "she" if name in words.WOMEN else "he")

    def relative(self) -> Person:
        """A grown-up of the family."""
        name = self.one(tuple(words.FAMILY))
        return Person(name, words.FAMILY[name])

    def things(self, count: int) -> list[Thing]:
        """Things with distinct nouns and distinct colours."""
        nouns = self.some(words.THINGS + words.PLURAL_THINGS, count)
        colours = self.some(words.COLOURS, count)
        return [self._thing(noun, colour) for noun, colour in zip(nouns, colours, strict=True)]

    def _thing(self, noun: str, colour: str) -> Thing:
        adjectives = f"{self.one(words.SIZES)} {colour}" if self.chance(0.4) else colour
        return Thing(noun, adjectives, plural=noun in words.PLURAL_THINGS)

    def animals(self, count: int) -> list[Animal]:
        """Animals of distinct kinds."""
        return [Animal(kind, *words.ANIMALS[kind]) for kind in self.some(tuple(words.ANIMALS), count)]

    def outdoors(self, count: int) -> list[Place]:
        """Distinct places under the sky."""
        return [Place(*place) for place in self.some(words.OUTDOORS, count)]

    def indoors(self, count: int) -> list[Place]:
        """Distinct places in a house."""
        return [Place(*place) for place in self.some(words.INDOORS, count)]
