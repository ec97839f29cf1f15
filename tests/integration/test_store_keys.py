"""A bearer key proves itself by its secret alone, until it expires or is revoked."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from api.store import keys
from api.store.models import ApiKey


def create(database, **options):
    with database.transaction() as session:
        return keys.create_key(session, "ann", "laptop", ["jobs"], **options)


def recognise(database, plaintext):
    with database.reading() as session:
        return keys.authenticate(session, plaintext)


def test_a_key_is_recognised_by_its_plaintext(database):
    key, plaintext = create(database)
    found = recognise(database, plaintext)
    assert (found.id, found.tenant, found.name, found.scopes) == (key.id, "ann", "laptop", ["jobs"])


def test_the_secret_is_long_and_stored_nowhere(database):
    key, plaintext = create(database)
    prefix, key_id, secret = plaintext.split("_", 2)
    assert (prefix, key_id) == ("sntl", key.id)
    assert len(secret) * 6 >= 256
    with database.reading() as session:
        row = session.execute(select(*ApiKey.__table__.columns)).one()
    assert not any(secret in str(value) for value in row)


def test_anything_else_is_not_recognised(database):
    _, first = create(database)
    _, second = create(database)
    mixed = "_".join([*first.split("_")[:2], second.split("_", 2)[2]])
    unknown = first.replace(first.split("_")[1], "0" * 16)
    for wrong in (
        first[:-1],
        first + "a",
        mixed,
        unknown,
        first.replace("sntl", "x"),
        "",
        "sntl",
        "sntl__",
        "sntl_é_\N{SNOWMAN}",
    ):
        assert recognise(database, wrong) is None, wrong


@pytest.mark.parametrize(("offset", "valid"), [(timedelta(hours=1), True), (timedelta(hours=-1), False)])
def test_a_key_expires(database, offset, valid):
    _, plaintext = create(database, expires_at=datetime.now(UTC) + offset)
    assert (recognise(database, plaintext) is not None) == valid


def test_a_revoked_key_is_not_recognised(database):
    key, plaintext = create(database)
    other, _ = create(database)
    with database.transaction() as session:
        assert [keys.revoke_key(session, key_id) for key_id in (key.id, key.id, "unknown")] == ["ann", None, None]
    assert recognise(database, plaintext) is None
    with database.reading() as session:
        assert {found.id: found.revoked_at is None for found in keys.list_keys(session)} == {
            key.id: False,
            other.id: True,
        }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_keys_are_managed_from_the_command_line(database, database_url):
    def run(*arguments):
        environment = os.environ | {"SENTINEL_DATABASE_URL": database_url}
        command = [sys.executable, "-m", "api.keys", *arguments]
        return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout

    _, left = create(database, expires_at=datetime.now(UTC) + timedelta(days=2))
    plaintext = run("create", "--name", "ci", "--tenant", "bob").strip()
    key = recognise(database, plaintext)
    run("revoke", key.id)
    assert recognise(database, plaintext) is None
    first, second = (line.split("\t") for line in run("list").splitlines())
    assert (first[1:4], first[4][:8]) == (["ann", "laptop", "jobs"], "expires ")
    assert (second[:4], second[4][:8]) == ([key.id, "bob", "ci", "read,submit"], "revoked ")
    assert recognise(database, left) is not None
