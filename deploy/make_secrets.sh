#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, in deploy/secrets; refuses to replace those that are there.
# Only the owner can enter the folder; the files themselves must be readable to the users inside the containers.
set -eu
cd "$(dirname "$0")"
mkdir -m 700 secrets
password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
printf '%s' "$password" > secrets/postgres_password
printf 'postgresql+psycopg://sentinel:%s@postgres:5432/sentinel' "$password" > secrets/sentinel_database_url
chmod 444 secrets/postgres_password secrets/sentinel_database_url
