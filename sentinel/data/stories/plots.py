"""What happens: plots among people and their things.

Each plot tells a whole story in which something said early decides what comes later: a name, a
thing with its colour, a place, a number, an order. Plots of journeys, animals and lists are in
`adventures.py`.
"""

from sentinel.data.stories import words
from sentinel.data.stories.grammar import Teller
from sentinel.data.stories.openings import aside, ending, introduce, one_day


def lost_and_found(t: Teller) -> None:
    """A thing is lost; a friend finds the same thing at the place the hero named."""
    introduce(t)
    t.cast(thing=t.things(1)[0], place=t.outdoors(1)[0], adult=t.relative(), sad=t.one(words.SAD))
    t.say(
        "{hero} had {thing.a}. {hero.They} loved {thing.them} very much.",
        "{hero} took {hero.their} {thing} everywhere.",
        "{adult} gave {hero} {thing.a}, and {thing.it} {thing.was} always with {hero.them}.",
    )
    one_day(t)
    t.say("{hero} played with {friend} {place}.", "{hero.They} went to play {place}, and {friend} came along.")
    t.say(
        "When {hero.they} came home, the {thing.noun} {thing.was} gone.",
        "In the evening {hero.they} looked for the {thing.noun}, but {thing.it} {thing.was} not there.",
    )
    t.say("{hero} was very {sad} and began to cry.", "{hero.They} felt {sad}.")
    aside(t)
    t.say(
        '"I lost my {thing}," {hero.they} said. "Where did you play?" asked {adult}. "We played {place}," said {hero}.',
        '"Why are you {sad}?" asked {adult}. "My {thing.noun} {thing.be} gone," said {hero}. "I was {place} today."',
    )
    t.say("{friend} went back to look {place}.", "{friend} heard this and ran to {place.noun}.")
    t.say("{friend.They} found the {thing} {place}!", "And there {thing.it} {thing.was}, {place}!")
    t.say(
        '"{thing.this} {thing.be} your {thing.noun}!" said {friend}. "Thank you, {friend}!" said {hero}.',
        '"Is this what you lost?" asked {friend}. "Yes, my {thing}! Thank you, {friend}!" cried {hero}.',
    )
    ending(t)


def sharing(t: Teller) -> None:
    """Two children want one thing and take turns."""
    introduce(t)
    t.cast(thing=t.things(1)[0], place=t.outdoors(1)[0], adult=t.adult())
    t.say(
        "{hero} and {friend} saw {thing.a} {place}.",
        "One day {hero} brought {thing.a} and met {friend} {place}.",
    )
    t.say(
        '"I want the {thing.noun}!" said {hero}. "No, I want {thing.them}!" said {friend}.',
        "{hero} took the {thing.noun}. {friend} wanted {thing.them} too and pulled hard.",
    )
    aside(t)
    t.say(
        '"Do not fight," said {adult}. "You can share the {thing}."',
        '{adult} came and asked, "Why do you fight about the {thing.noun}? Take turns."',
    )
    t.say(
        "So {hero} gave the {thing.noun} to {friend}, and then {friend} gave {thing.them} back to {hero}.",
        "First {hero} had the {thing.noun}. Then {friend} had {thing.them}. Both of them were happy.",
    )
    t.say('"Sharing is fun," said {friend}.', '"Thank you, {hero}," said {friend}. "You are kind."')
    ending(t)


def birthday(t: Teller) -> None:
    """A present is chosen, hidden from the friend, and opened."""
    introduce(t)
    thing, other = t.things(2)
    t.cast(thing=thing, other=other, place=t.indoors(1)[0])
    t.say("It was {friend}'s birthday.", "{friend} had a birthday, and {hero} wanted to give {friend.them} a present.")
    t.say(
        "At the shop {hero} saw {thing.a} and {other.a}. {hero.They} bought the {thing.noun}, not the {other.noun}.",
        "{hero} wanted to buy {other.a}, but {friend} liked the {thing.noun} more. So {hero.they} bought {thing.a}.",
    )
    t.say("{hero.They} hid {thing.them} {place}.", "At home {hero.they} put the {thing.noun} {place}.")
    aside(t)
    t.say(
        '"Where is my present?" asked {friend}. "Look {place}," said {hero}.',
        '{friend} came and asked, "Do you have something for me?" {hero} said, "Yes, {place}!"',
    )
    t.say(
        '{friend} looked {place} and found the {thing}. "{thing.It} {thing.be} lovely!" {friend.they} said.',
        "{friend} opened the present {place}. Inside {thing.was} {thing.a}!",
    )
    t.say('"Thank you, {hero}!" said {friend}.', "{friend} hugged {hero} and said thank you.")
    ending(t)


def hide_and_seek(t: Teller) -> None:
    """The seeker looks in wrong places before the right one."""
    introduce(t)
    right, wrong, worse = t.indoors(3)
    t.cast(right=right, wrong=wrong, worse=worse)
    t.say("{hero} and {friend} played hide and seek.", '"Let us play hide and seek," said {friend} to {hero}.')
    t.say("{friend} hid {right}.", "{hero} closed {hero.their} eyes, and {friend} hid {right}.")
    t.say("{hero} counted to ten.", '"I am coming, {friend}!" said {hero}.')
    aside(t)
    t.say(
        "{hero} looked {wrong}. {friend} was not {wrong}. Then {hero.they} looked {worse}. {friend} was not {worse}.",
        '"Are you {wrong}?" asked {hero}. No. "Are you {worse}?" No, {friend} was not there.',
    )
    t.say(
        "At last {hero.they} looked {right}, and there was {friend}!",
        '"Then you must be {right}!" said {hero}, and {hero.they} found {friend} {right}.',
    )
    t.say("{friend} laughed. Now it was {hero}'s turn to hide.", '"You found me, {hero}!" said {friend}.')
    ending(t)


def broken(t: Teller) -> None:
    """Something breaks; the truth is told; it is mended."""
    introduce(t)
    t.cast(thing=t.things(1)[0], place=t.indoors(1)[0], adult=t.relative(), sad=t.one(words.SAD))
    t.say(
        "{adult} had {thing.a} {place}. {hero} and {friend} wanted to see {thing.them}.",
        "There {thing.was} {thing.a} {place}. {hero} told {friend} that {thing.it} belonged to {adult}.",
    )
    t.say(
        "{hero} took the {thing.noun} and dropped {thing.them}. {thing.It} {thing.was} broken!",
        "But {hero} was not careful, and the {thing.noun} broke.",
    )
    t.say("{hero} was {sad}.", '"Oh no!" said {friend}. {hero} was {sad}.')
    aside(t)
    t.say(
        '"Who broke my {thing}?" asked {adult}. "I did. I am sorry," said {hero}.',
        '{hero} went to {adult} and said, "I broke your {thing}. I am sorry, {adult}."',
    )
    t.say(
        '{adult} was not angry. "Thank you for telling the truth, {hero}," {adult.they} said.',
        '"You told the truth, {hero}," said {adult}. "I am not angry with you."',
    )
    t.say(
        "Together they fixed the {thing.noun} and put {thing.them} back {place}.",
        "{adult} and {hero} fixed {thing.them}. Soon the {thing} {thing.was} {place} again.",
    )
    ending(t)


def get_well(t: Teller) -> None:
    """A friend is ill; what the hero promises is what the hero brings."""
    introduce(t)
    t.cast(thing=t.things(1)[0], food=t.one(words.FOODS), adult=t.relative())
    t.say(
        "{friend} was ill and had to stay in bed.",
        "One day {friend} could not come out to play. {friend.They} was ill.",
    )
    t.say(
        '"I will bring you {food} and {thing.a}," said {hero}.',
        "{hero} wanted to help. {adult} gave {hero.them} {food}, and {hero.they} also took {thing.a}.",
    )
    t.say("{hero} walked to {friend}'s house.", "It was a long way to {friend}, but {hero} did not stop.")
    aside(t)
    t.say(
        '"Look, {friend}, I have {food} for you, and {thing.this} {thing} too," said {hero}.',
        "{hero} gave {friend} the {food} and the {thing}.",
    )
    t.say(
        "{friend} ate the {food} and held the {thing.noun}. Soon {friend.they} felt better.",
        '"The {food} and the {thing.noun} make me feel better," said {friend}. "Thank you, {hero}."',
    )
    ending(t)


def counting(t: Teller) -> None:
    """Some of a number of things are given away; the rest is counted."""
    introduce(t)
    total = t.number(2, 10)
    given = t.number(1, total - 1)
    t.cast(things=t.one(words.COUNTED), total=words.NUMBERS[total], given=words.NUMBERS[given])
    t.cast(rest=words.NUMBERS[total - given], adult=t.adult())
    t.say("{hero} had {total} {things}.", "{adult} gave {hero} {total} {things}.", "{hero} found {total} {things}.")
    t.say('"I have no {things}," said {friend}.', "{friend} looked at the {things} and had none.")
    aside(t)
    t.say("{hero} gave {given} to {friend}.", '"You can have {given}," said {hero} to {friend}.')
    t.say(
        "Now {hero} had {rest} and {friend} had {given}.",
        '"How many are left?" asked {adult}. "I had {total} and gave away {given}, so I have {rest}," said {hero}.',
    )
    t.say('"Thank you for the {things}, {hero}!" said {friend}.', "{friend} was happy with the {things}.")
    ending(t)


def where_is_it(t: Teller) -> None:
    """Several things lie at several places; one is asked for."""
    introduce(t)
    things, places = t.things(3), t.indoors(3)
    asked = t.number(0, 2)
    t.cast(a=things[0], b=things[1], c=things[2], at_a=places[0], at_b=places[1], at_c=places[2])
    t.cast(thing=things[asked], place=places[asked], adult=t.relative())
    t.say(
        "{hero} put the {a} {at_a}, the {b} {at_b} and the {c} {at_c}.",
        "The {a} {a.was} {at_a}. The {b} {b.was} {at_b}. The {c} {c.was} {at_c}.",
    )
    aside(t)
    t.say(
        '"Where {thing.be} the {thing.noun}?" asked {adult}. "The {thing.noun} {thing.be} {place}," said {hero}.',
        '{friend} asked, "Can I have the {thing.noun}?" {hero} said, "Look {place}."',
    )
    t.say(
        "And so it was. The {thing} {thing.was} {place}.",
        "{friend} looked {place} and found the {thing} there.",
    )
    t.maybe('"You know where everything is, {hero}!" said {friend}.', "Then they put everything back.")
    ending(t)


def contest(t: Teller) -> None:
    """Three children are compared; the order decides who wins."""
    introduce(t)
    more, most, settle = t.one(words.MEASURES)
    first, second, last = t.ranked("hero", "friend", "third")
    t.cast(first=first, second=second, last=last, more=more, most=most, settle=settle, thing=t.things(1)[0])
    t.say(
        "{first} was {more} than {second}. {second} was {more} than {last}.",
        "{second} was {more} than {last}, but {first} was {more} than {second}.",
    )
    t.say('"I am the {most}!" said {last}. "Let us see," said {second}.', '"Who is the {most}?" asked {second}.')
    aside(t)
    t.say("So {hero}, {friend} and {third} {settle}.", "The three of them {settle}.")
    t.say(
        "{first} was the {most} and won {thing.a}. {last} was last.",
        '"{first} is the {most}!" said {second}. {first} got {thing.a}.',
    )
    t.say("{last} was sad, so {first} let {last.them} hold the {thing.noun}.", '"Well done, {first}," said {last}.')
    ending(t)


def party(t: Teller) -> None:
    """Each guest brings something; who brought what is asked afterwards."""
    introduce(t)
    things, guests = t.things(3), t.ranked("hero", "friend", "third")
    asked = t.number(0, 2)
    t.cast(a=things[0], b=things[1], c=things[2], guest=guests[asked], thing=things[asked])
    t.cast(first=guests[0], second=guests[1], last=guests[2], adult=t.relative())
    t.say("{hero} had a party for {friend} and {third}.", "{adult} made a party for {hero}, {friend} and {third}.")
    t.say(
        "{first} brought {a.a}, {second} brought {b.a} and {last} brought {c.a}.",
        "{first} came with {a.a}. {second} came with {b.a}. {last} came with {c.a}.",
    )
    aside(t)
    t.say(
        '"Who brought the {thing.noun}?" asked {adult}. "{guest} brought the {thing}," said {hero}.',
        '"Thank you for the {thing}, {guest}," said {adult}.',
        '"What did {guest} bring?" asked {adult}. "{guest} brought the {thing.noun}," said {friend}.',
    )
    t.say(
        "They played with the {a.noun}, the {b.noun} and the {c.noun}.", "{hero}, {friend} and {third} played all day."
    )
    ending(t)
