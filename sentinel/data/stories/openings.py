"""How stories begin and what passes between events.

Each function says a few sentences and leaves the roles that they introduce in the cast.
"""

from sentinel.data.stories import words
from sentinel.data.stories.grammar import Teller


def introduce(t: Teller) -> None:
    """Present the hero; casts `hero`, and `friend` and `third` for later."""
    hero, friend, third = t.children(3)
    t.cast(hero=hero, friend=friend, third=third)
    t.cast(trait=t.one(words.TRAITS), home=t.one(words.HOMES), hobby=t.one(words.HOBBIES))
    t.say(
        "Once upon a time, there was a {trait} {hero.child} named {hero}.",
        "Once upon a time, a {trait} {hero.child} named {hero} lived in {home}.",
        "Once there was a {hero.child} called {hero}, who was very {trait}.",
        "There was a {trait} {hero.child} whose name was {hero}.",
        "{hero} was a {trait} {hero.child} who lived in {home}.",
    )
    t.maybe(
        "{hero.They} loved to {hobby}.",
        "{hero.They} liked to {hobby} with {hero.their} friend {friend}.",
        "Every morning {hero.they} went out to {hobby}.",
    )
    t.maybe(
        '"Hello, {friend}!" said {hero}. "Hello, {hero}!" said {friend}.',
        "{hero} knew {friend}, and {friend} knew {hero}.",
        "{hero} and {friend} lived next to {third}. {third} liked {hero} and {friend}.",
    )


def one_day(t: Teller) -> None:
    """Set the time of day."""
    t.cast(day=t.one(words.DAYS))
    t.maybe("One {day} day, something happened.", "It was a {day} morning.", "The day was {day} and {hero} was awake.")


def aside(t: Teller) -> None:
    """Put distance between what was said and when it matters again."""
    animal, place = t.animals(1)[0], t.outdoors(1)[0]
    t.cast(passing=animal, somewhere=place, day=t.one(words.DAYS))
    t.maybe(
        "{passing.a} {passing.moved} past and {passing.sounded}.",
        "Just then, {passing.a} {passing.sounded} {somewhere}.",
        "Outside, it was {day}.",
        "{hero} heard {passing.a}. It {passing.sounded} twice.",
        "{hero} took a deep breath and waited.",
        "The sky was {day} and the birds were quiet.",
    )


def ending(t: Teller) -> None:
    """Close the story."""
    t.cast(happy=t.one(words.HAPPY))
    t.maybe(
        "{hero} was {happy}.",
        "From that day on, {hero} and {friend} were best friends.",
        "That night, {hero} went to bed and dreamed of {hero.their} friend {friend}.",
        "{hero} smiled at {friend}, and {friend} smiled at {hero}.",
        "{hero} told {hero.their} family all about {friend}.",
        "They all lived happily ever after.",
    )
