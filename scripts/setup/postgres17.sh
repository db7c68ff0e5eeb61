#!/bin/sh
# PostgreSQL 17 of Debian 13 into .cache/pg17, on a machine that stays Debian 12.
set -eu
. "$HOLDFAST_ROOT/scripts/setup/lib/suite.sh"

major=17
target="$HOLDFAST_CACHE/pg$major"
apt_dir="$HOLDFAST_CACHE/apt-pg$major"
bin="$target/usr/lib/postgresql/$major/bin"
libs="$target/usr/lib/x86_64-linux-gnu"

echo "setup: fetching PostgreSQL $major"
rm -rf "$target" "$target.new"
apt_of_suite trixie "$apt_dir"
# shellcheck disable=SC2046 # a list of words on purpose
unpack "$apt_dir/debs" "$target.new" "postgresql-$major" "postgresql-client-$major" $(libraries_of "postgresql-$major")
rm -rf "$target.new/usr/lib/postgresql/$major/lib/bitcode"
mv "$target.new" "$target"
relocate "$libs" "$bin"/*

"$bin/postgres" --version
"$bin/initdb" --version
rm -rf "$apt_dir"
