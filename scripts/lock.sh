#!/usr/bin/env bash
# Write requirements/lock.txt from what .venv holds. `make lock` calls it, after somebody has
# upgraded the environment on purpose. Local version tags (torch's +cpu) are cut off: the bare version
# matches every build of it, a tag would demand a build that other machines cannot get.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
    echo "# Exact versions for .venv (used as constraints). Made by 'make lock'; do not edit by hand."
    .venv/bin/python -m pip freeze --all --exclude-editable --exclude pip --exclude remediator \
        | sed -E 's/^([^=]+==[^+]+)\+.*$/\1/' | LC_ALL=C sort -f
} >"$new"
cp "$new" requirements/lock.txt
echo "requirements/lock.txt: $(grep -c == requirements/lock.txt) packages"
