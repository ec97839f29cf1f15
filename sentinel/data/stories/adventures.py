"""What happens: plots of weather, journeys, animals and lists.

Like `plots.py`; here lists come back in their order and causes have their effects.
"""

from sentinel.data.stories import words
from sentinel.data.stories.grammar import Person, Teller
from sentinel.data.stories.openings import aside, ending, introduce, one_day


def bad_weather(t: Teller) -> None:
    """The weather spoils a plan; the remedy fits the weather."""
    introduce(t)
    sky = t.one(tuple(words.WEATHER))
    effect, cure = words.WEATHER[sky]
    t.cast(sky=sky, effect=effect, cure=cure, game=t.one(words.GAMES), place=t.outdoors(1)[0], adult=t.relative())
    t.say(
        "{hero} and {friend} wanted to {game} {place}.",
        '"Let us {game}," said {hero} to {friend}. They went out and stopped {place}.',
    )
    t.say("{sky}.", "But then {hero} looked up. {sky}.")
    t.say(
        "Soon {hero} and {friend} were {effect}.", '"I am {effect}," said {friend}. "I am {effect} too," said {hero}.'
    )
    aside(t)
    t.say("They ran home to {adult}.", '"Let us go home," said {hero}. At home {adult} opened the door.')
    t.say(
        '"You are {effect}!" said {adult}, and {adult.they} gave them {cure}.',
        "{adult} saw that they were {effect} and brought {cure}.",
    )
    t.say('"Tomorrow we will {game}," said {hero}.', "The next day was better, and they could {game} {place}.")
    ending(t)


def rescue(t: Teller) -> None:
    """An animal is in need; a grown-up helps at the place where it was heard."""
    introduce(t)
    t.cast(animal=t.animals(1)[0], place=t.outdoors(1)[0], adult=t.relative(), pet=t.one(words.PET_NAMES))
    one_day(t)
    t.say(
        "{hero} heard something {place}. It was {animal.a}. The {animal} {animal.sounded} loudly.",
        "{hero.They} saw {animal.a} {place}. It could not move, so it {animal.sounded}.",
    )
    t.say('"The {animal} needs help!" said {friend}.', '"Poor {animal}!" said {hero} to {friend}. "Let us help."')
    aside(t)
    t.say(
        '{hero} ran to {adult}. "There is {animal.a} {place}," {hero.they} said.',
        '"Please come, {adult}!" said {hero}. "{animal.a} is stuck {place}."',
    )
    t.say(
        "{adult} went with {hero} and helped the {animal}.",
        "{adult} followed {hero.them} {place}, and together they lifted the {animal}.",
    )
    t.say(
        "The {animal} {animal.sounded} and {animal.moved} away.",
        "The {animal} was happy. It {animal.sounded} and {animal.moved} around {hero}.",
    )
    t.maybe(
        '"Goodbye, {animal}!" said {hero}.',
        '{hero} named the {animal} {pet}. "Come back soon, {pet}!" {hero.they} said.',
    )
    ending(t)


def strange_noise(t: Teller) -> None:
    """A noise frightens; its sound tells which animal made it."""
    introduce(t)
    t.cast(animal=t.animals(1)[0], place=t.indoors(1)[0], adult=t.relative())
    t.say("One night, {hero} could not sleep.", "It was dark, and {hero} was in bed.")
    t.say("Something {animal.sounded} {place}.", "{hero.They} heard a noise {place}. Something {animal.sounded}.")
    t.say("{hero} was afraid and called {adult}.", '"{adult}, I am afraid!" said {hero}.')
    aside(t)
    t.say(
        '"What did you hear?" asked {adult}. "Something {animal.sounded} {place}," said {hero}.',
        "{adult} came with a lamp. {adult.They} looked {place}.",
    )
    t.say(
        "It was only {animal.a}! The {animal} {animal.sounded} again and {animal.moved} away.",
        '"Look, it is only {animal.a}," said {adult}. The {animal} {animal.moved} out of the house.',
    )
    t.say('{hero} laughed. "Good night, {animal}," {hero.they} said.', "Then {hero} was not afraid and fell asleep.")


def shopping(t: Teller) -> None:
    """A list is given, bought, checked and used, always in the same order."""
    introduce(t)
    first, second, third = t.some(words.FOODS, 3)
    t.cast(first=first, second=second, third=third, dish=t.one(words.DISHES), adult=t.relative())
    t.say(
        '"We need {first}, {second} and {third}," said {adult} to {hero}.',
        '{adult} wanted to make {dish}. "Please buy {first}, {second} and {third}, {hero}," {adult.they} said.',
    )
    t.say('{friend} asked, "Can I come too?" "Yes, {friend}," said {hero}.', "{hero} met {friend} on the way.")
    aside(t)
    t.say(
        "At the shop {hero.they} bought {first}, {second} and {third}.",
        '{hero} said to {friend}, "First {first}, then {second} and then {third}."',
    )
    t.say(
        '"Do you have the {first}?" asked {adult}. "Yes, and the {second} and the {third} too," said {hero}.',
        "{hero} came home and put the {first}, the {second} and the {third} on the table.",
    )
    t.say(
        "With the {first}, the {second} and the {third} they made {dish}.",
        "Then {adult} and {hero} made {dish}. {friend} ate with them.",
    )
    ending(t)


def journey(t: Teller) -> None:
    """Animals are met on a trip and told of afterwards in the same order."""
    introduce(t)
    first, second, third = t.animals(3)
    t.cast(a=first, b=second, c=third, vehicle=t.one(words.VEHICLES), land=t.one(words.LANDS), adult=t.relative())
    t.say(
        "{hero} and {adult} went to {land} by {vehicle}.",
        '"Let us go to {land}," said {adult} to {hero}. So they took the {vehicle}.',
    )
    t.say(
        "On the way {hero} saw {a.a}, {b.a} and {c.a}.",
        "First they saw {a.a}. It {a.sounded}. Then {b.a} {b.sounded}. At last they saw {c.a}. It {c.sounded}.",
    )
    aside(t)
    t.say(
        "In the evening the {vehicle} brought them home.",
        "They stayed at {land} all day. Then they took the {vehicle} home.",
    )
    t.say('"What did you see?" asked {friend}.', '"Where were you, {hero}?" asked {friend}. "At {land}."')
    t.say(
        '"I saw {a.a}, {b.a} and {c.a}," said {hero}.',
        "{hero} told {friend} about the {a}, the {b} and the {c}.",
    )
    t.maybe('"The {b} {b.sounded}!" {hero.they} said.', '"I want to see {c.a} too," said {friend}.')
    ending(t)


def garden(t: Teller) -> None:
    """What is planted, in its colour and place, is what grows."""
    introduce(t)
    colour, plant = t.one(words.COLOURS), t.one(("roses", "tulips", "beans", "carrots", "berries", "lilies"))
    t.cast(colour=colour, plant=plant, place=t.outdoors(1)[0], adult=t.adult(), days=words.NUMBERS[t.number(2, 10)])
    t.say(
        '{adult} gave {hero} some seeds. "They will be {colour} {plant}," said {adult}.',
        "{hero} had seeds for {colour} {plant}.",
    )
    t.say("{hero.They} planted them {place}.", "{hero} put the seeds in the ground {place}.")
    t.say("Every day {hero} gave them water, for {days} weeks.", "{days} days passed, but nothing grew. {hero} waited.")
    aside(t)
    t.say(
        "One morning {hero.they} went to look {place} and saw {colour} {plant}!",
        "Then the sun came out, and {place} there were many {colour} {plant}.",
    )
    t.say(
        '"What lovely {plant}!" said {friend}. "You can have some," said {hero}.',
        "{hero} gave {friend} some of the {colour} {plant}.",
    )
    ending(t)


def lost_pet(t: Teller) -> None:
    """A pet with a name and a colour runs away and is known by both."""
    introduce(t)
    animal, names = t.animals(1)[0], t.some(words.PET_NAMES, 1)
    t.cast(
        animal=animal, pet=Person(names[0], t.one(("she", "he"))), colour=t.one(words.COLOURS), place=t.outdoors(1)[0]
    )
    t.say(
        "{hero} had {animal.a} named {pet}. {pet.Their} favourite friend was {hero}. {pet} was {colour}.",
        "{hero}'s best friend was a little {colour} {animal}. {pet.Their} name was {pet}.",
    )
    t.say("One day {pet} ran away.", "But one day {hero} could not find {pet} {place}.")
    t.say(
        '"Have you seen {pet}?" asked {hero}. "{pet.They} is {colour}."',
        '"{pet}! {pet}!" called {hero}. But {pet} did not come.',
    )
    aside(t)
    t.say(
        '{friend} said, "I saw a little {colour} {animal} {place}." They ran there.',
        "{friend} looked {place}. Something {animal.sounded}. It was a little {colour} {animal}!",
    )
    t.say(
        "{pet} was {place}. {pet.They} {animal.sounded} when {pet.they} saw {hero}.",
        'The {animal} {animal.moved} to {hero}. "{pet}, it is you!" said {hero}.',
    )
    t.say("{hero} held {pet} and thanked {friend}.", '"Thank you, {friend}," said {hero}. "I missed {pet} so much."')
    ending(t)
