"""The word lists of the stories.

Knows words and what belongs to them (gender, sound, number, preposition). Knows no sentences.
"""

from typing import Final

Pair = tuple[str, str]

GIRLS: Final = ("Lily", "Mia", "Anna", "Sara", "Lucy", "Ruby", "Nora", "Alice")
BOYS: Final = ("Tom", "Ben", "Max", "Sam", "Leo", "Jack", "Omar", "Peter")
WOMEN: Final = ("Mom", "Grandma", "Aunt Flora", "the teacher", "the baker", "the doctor")
MEN: Final = ("Dad", "Grandpa", "Uncle Fred", "the farmer", "the gardener", "the sailor")
FAMILY: Final = {"Mom": "she", "Dad": "he", "Grandma": "she", "Grandpa": "he", "Aunt Flora": "she", "Uncle Fred": "he"}

TRAITS: Final = (
    "little", "kind", "brave", "clever", "cheerful", "quiet", "young", "shy", "curious", "friendly",
    "gentle", "lively", "polite", "careful", "bold", "funny",
)  # fmt: skip
HOBBIES: Final = (
    "sing", "dance", "draw", "read books", "climb trees", "run fast", "swim", "tell jokes", "play music",
    "build towers", "look at the stars", "play outside", "collect leaves", "ride a bike", "paint", "cook",
)  # fmt: skip
HOMES: Final = (
    "a small house", "a big city", "a quiet village", "a white cottage", "a wooden hut", "a tall tower",
    "a house by the sea", "a house on a hill",
)  # fmt: skip
COLOURS: Final = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black")
SIZES: Final = ("big", "small", "tiny", "huge", "long", "old", "new", "round", "shiny", "soft")

# Singular nouns, then nouns that are always spoken of in the plural.
THINGS: Final = (
    "ball", "kite", "doll", "drum", "book", "hat", "boat", "puzzle", "train", "robot", "bell", "umbrella", "ring",
    "lamp", "cup", "blanket", "scarf", "basket",
)  # fmt: skip
PLURAL_THINGS: Final = ("boots", "shoes", "mittens", "blocks", "beads", "skates")
COUNTED: Final = ("marbles", "apples", "shells", "stickers", "cookies", "stones", "flowers", "coins")
NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
FOODS: Final = (
    "apples", "pears", "plums", "carrots", "eggs", "nuts", "beans", "bread", "milk", "honey", "rice", "cheese",
)  # fmt: skip
DISHES: Final = ("a cake", "a pie", "soup", "pancakes", "a big salad", "cookies", "jam", "a pudding")

OUTDOORS: Final[tuple[Pair, ...]] = (
    ("near", "the pond"), ("under", "the old tree"), ("behind", "the shed"), ("in", "the garden"),
    ("by", "the river"), ("on", "the hill"), ("at", "the park"), ("in", "the forest"), ("beside", "the fence"),
    ("next to", "the barn"), ("at", "the beach"), ("on", "the bridge"), ("in", "the meadow"), ("near", "the well"),
)  # fmt: skip
INDOORS: Final[tuple[Pair, ...]] = (
    ("under", "the bed"), ("behind", "the sofa"), ("in", "the box"), ("on", "the shelf"), ("under", "the table"),
    ("in", "the drawer"), ("behind", "the door"), ("beside", "the stove"), ("on", "the chair"),
    ("in", "the cupboard"), ("by", "the window"), ("behind", "the curtain"),
)  # fmt: skip

# Animal: its sound, and how it moves, in the past tense.
ANIMALS: Final = {
    "dog": ("barked", "ran"), "cat": ("meowed", "ran"), "duck": ("quacked", "waddled"), "cow": ("mooed", "walked"),
    "horse": ("neighed", "galloped"), "frog": ("croaked", "hopped"), "bird": ("sang", "flew"),
    "bee": ("buzzed", "flew"), "owl": ("hooted", "flew"), "mouse": ("squeaked", "ran"), "pig": ("grunted", "walked"),
    "rabbit": ("squeaked", "hopped"), "bear": ("growled", "walked"), "lion": ("roared", "ran"),
    "hen": ("clucked", "walked"), "wolf": ("howled", "ran"), "goose": ("honked", "waddled"),
    "sheep": ("bleated", "walked"),
}  # fmt: skip
PET_NAMES: Final = ("Spot", "Fluffy", "Pip", "Coco", "Rex", "Biscuit", "Shadow", "Star")

# Sky: what it does to whoever is out in it, and what helps.
WEATHER: Final = {
    "It began to rain": ("wet", "a dry towel"), "Snow began to fall": ("cold", "a warm blanket"),
    "A strong wind blew": ("cold", "a thick coat"), "The sun was very hot": ("thirsty", "a glass of water"),
    "A storm came": ("wet", "dry clothes"), "Thick fog came": ("lost", "a bright lamp"),
}  # fmt: skip
DAYS: Final = ("sunny", "rainy", "windy", "cloudy", "cold", "warm", "snowy", "bright")
GAMES: Final = ("fly a kite", "play tag", "have a picnic", "catch fish", "ride bikes", "build a castle", "pick berries")
HAPPY: Final = ("happy", "glad", "proud", "cheerful", "full of joy")
SAD: Final = ("sad", "upset", "worried", "unhappy")
VEHICLES: Final = ("train", "bus", "boat", "car", "wagon", "sled")
LANDS: Final = ("the city", "the sea", "the zoo", "the mountains", "the island", "the farm", "the castle", "the market")
# What is compared: comparative, superlative, and how it is settled.
MEASURES: Final = (
    ("taller", "tallest", "stood back to back"), ("faster", "fastest", "ran a race"),
    ("stronger", "strongest", "pulled a rope"), ("older", "oldest", "counted their birthdays"),
    ("louder", "loudest", "sang a song"),
)  # fmt: skip
