"""Entity tags of HTTP (RFC 9110 §8.8.3 and §13): writing one, and asking whether the caller has it."""

import re

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def quoted(version: str | int) -> str:
    """The strong tag of a version."""
    return f'"{version}"'


def has_tag(if_none_match: str | None, tag: str) -> bool:
    """Whether an If-None-Match header names `tag`, by weak comparison."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag.strip('"') in _TAG.findall(if_none_match)
