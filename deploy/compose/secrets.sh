#!/bin/sh
# Makes the secrets that compose.yaml reads, each once: what is there stays.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets

random() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }

once() { [ -e "secrets/$1" ] || random | tr -d '=\n' >"secrets/$1"; }

once api-key
once postgres-password
once grafana-password
[ -e secrets/safelight.env ] || cat >secrets/safelight.env <<ENV
SAFELIGHT_DATABASE_URL=postgresql://safelight:$(cat secrets/postgres-password)@postgres/safelight
SAFELIGHT_ENCRYPTION_KEYS=$(random)
ENV
# Containers read their secrets as users of their own; the folder keeps everybody else out.
chmod 644 secrets/api-key secrets/postgres-password secrets/grafana-password
chmod 700 secrets
