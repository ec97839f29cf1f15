"""Stories: the same seed, the same text; splits apart; grammar that agrees."""

import hashlib
import re
from collections import Counter
from itertools import islice

import pytest

from sentinel.data.stories import PLOTS, generate_stories, split_of, split_stories, words

SAMPLE = tuple(islice(generate_stories(seed=3), 3000))


def sentences_with(fragment: str) -> list[str]:
    pattern = re.compile(fragment)
    return [match[0] for story in SAMPLE for match in pattern.finditer(story)]


def test_a_seed_decides_every_story():
    assert list(islice(generate_stories(seed=3), 100)) == list(SAMPLE[:100])
    assert list(islice(generate_stories(seed=4), 100)) != list(SAMPLE[:100])


def test_the_text_is_the_one_the_shipped_models_were_trained_on():
    text = "\n".join(split_stories("train", 1000))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "c5bedf6067a623e9372eaa23fd602261e658a309171744c3f6bbdcc2deec592a"
    ), "The stories changed: run scripts/train_builtin_models.py again and put the new hash here."


def test_no_story_is_in_both_splits():
    train, evaluation = set(split_stories("train", 3000)), set(split_stories("evaluation", 300))
    assert (len(train), len(evaluation)) == (3000, 300)
    assert not train & evaluation
    assert {split_of(story) for story in split_stories("evaluation", 50, seed=9)} == {"evaluation"}


def test_about_one_story_in_ten_is_for_evaluation():
    share = Counter(map(split_of, SAMPLE))["evaluation"] / len(SAMPLE)
    assert 0.07 < share < 0.13


def test_stories_are_varied():
    vocabulary = {word.lower() for story in SAMPLE for word in re.findall(r"[A-Za-z']+", story)}
    assert 500 < len(vocabulary) < 1000
    assert len(set(SAMPLE)) == len(SAMPLE)
    assert len(PLOTS) >= 8


def test_stories_are_one_line_of_finished_sentences():
    for story in SAMPLE:
        assert "\n" not in story
        assert not re.search(r"[{}]|  ", story)
        assert story[0].isupper()
        assert story[-1] in '."!'
        assert story.count('"') % 2 == 0
        assert not re.search(r"\. [a-z]", story)


@pytest.mark.parametrize(("article", "wrong_start"), [("a", "[aeiou]"), ("an", "[^aeiou]")])
def test_articles_agree_with_the_next_word(article, wrong_start):
    assert sentences_with(rf"\b{article} [a-z]+")
    assert not sentences_with(rf"(?i)\b{article} {wrong_start}\w*")


def test_children_keep_their_pronouns():
    girls, boys = "|".join(words.GIRLS), "|".join(words.BOYS)
    assert sentences_with(rf"({girls}) was ill and had to stay in bed\. .*?[Ss]oon she felt better")
    assert not sentences_with(rf"({girls}) was a \w+ (boy)|({boys}) was a \w+ (girl)")
    assert not sentences_with(rf"girl named ({boys})\b|boy named ({girls})\b")
    assert not sentences_with(rf"({girls}) (told|closed) his|({boys}) (told|closed) her")


def test_number_agrees_with_the_thing():
    plural, singular = "|".join(words.PLURAL_THINGS), "|".join(words.THINGS)
    assert sentences_with(rf"the ({plural}) were")
    assert not sentences_with(rf"the ({plural}) (was|is)\b|the ({singular}) (were|are)\b")
    assert not sentences_with(rf"\ba (\w+ )?(\w+ )?({plural})\b")


def test_what_was_lost_is_what_is_found():
    found = [story for story in SAMPLE if "is this what you lost?" in story.lower()]
    assert found
    for story in found:
        thing = re.search(r"Yes, my (.+?)!", story)[1]
        assert story.count(thing) >= 2


def test_counts_add_up():
    rests = re.compile(r"I had (\w+) and gave away (\w+), so I have (\w+)")
    sums = [tuple(map(words.NUMBERS.index, match)) for story in SAMPLE for match in rests.findall(story)]
    assert sums
    assert all(total - given == rest for total, given, rest in sums)
