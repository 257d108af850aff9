#!/usr/bin/env bash
# Build the images cohortium-coordinator, cohortium-board, cohortium-agent and cohortium-courier.
#
# With docker or podman when an engine answers; else with Debian's buildah (chroot isolation, vfs
# storage), which needs no engine, on a base made by debootstrap unless BASE names another.
#   BASE=...      base image with Python 3.11 (default: python:3.11-slim, or the debootstrap base)
#   PYTHON=...    the Python that fills docker/wheels, from which the images install offline
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-.venv/bin/python}"
STORAGE=(--storage-driver vfs)
NAMES=(coordinator board agent courier)

fill_wheels() {
  if [ -z "$(find docker/wheels -name 'torch-*.whl' -print -quit)" ]; then
    "$PYTHON" -m pip download --quiet --disable-pip-version-check -d docker/wheels torch==2.13.0 hatchling
    "$PYTHON" -m pip download --quiet --disable-pip-version-check -d docker/wheels \
      --find-links docker/wheels -c constraints.txt ".[server,board,site]"
    rm -f docker/wheels/cohortium-*
  fi
}

build() { # build COMMAND...: run it for each image
  for name in "${NAMES[@]}"; do
    "$@" --build-arg "BASE=$BASE" \
      --build-arg "WHEELS=--no-index --find-links /wheels" \
      --file "docker/$name.Dockerfile" --tag "cohortium-$name" .
  done
}

make_base() { # a Debian with Python 3.11 as an image of ours
  if buildah "${STORAGE[@]}" inspect --type image cohortium-base >/dev/null 2>&1; then return; fi
  local root
  root="$(mktemp -d)"
  debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates bookworm "$root" >/dev/null
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  local container
  container="$(buildah "${STORAGE[@]}" from scratch)"
  buildah "${STORAGE[@]}" copy --quiet "$container" "$root" / >/dev/null
  buildah "${STORAGE[@]}" commit --quiet "$container" cohortium-base >/dev/null
  buildah "${STORAGE[@]}" rm "$container" >/dev/null
  rm -rf "$root"
}

fill_wheels
for engine in docker podman; do
  if command -v "$engine" >/dev/null 2>&1 && "$engine" info >/dev/null 2>&1; then
    BASE="${BASE:-python:3.11-slim}"
    build "$engine" build
    exit 0
  fi
done
if ! command -v buildah >/dev/null 2>&1; then
  echo "no engine answers and buildah is absent: install docker, podman, or Debian's buildah and debootstrap" >&2
  exit 1
fi
if [ -z "${BASE:-}" ]; then
  make_base
  BASE=localhost/cohortium-base
fi
image_id() { buildah "${STORAGE[@]}" images --quiet "localhost/cohortium-$1" 2>/dev/null || true; }
declare -A before
for name in "${NAMES[@]}"; do before[$name]="$(image_id "$name")"; done
# --format docker: the OCI format has no health checks.
build buildah "${STORAGE[@]}" build --isolation chroot --format docker --quiet
# vfs shares no layers: each image that a new one replaced would keep gigabytes.
for name in "${NAMES[@]}"; do
  if [ -n "${before[$name]}" ] && [ "${before[$name]}" != "$(image_id "$name")" ]; then
    buildah "${STORAGE[@]}" rmi "${before[$name]}" >/dev/null 2>&1 || true  # a container may use it
  fi
done
