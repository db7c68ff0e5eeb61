#!/bin/sh
# PostgreSQL 17 of Debian 13 into .cache/pg17, on a machine that stays Debian 12.
#
# apt runs with directories of its own, a package database that is empty, and a sources list whose address is read
# from the machine's own apt configuration; packages are downloaded and unpacked, never installed. The programs then
# get the unpacked libc as their interpreter and the unpacked libraries as their RPATH, which (unlike RUNPATH) also
# holds for the modules that the server loads.
set -eu

suite=trixie
major=17
target="$HOLDFAST_CACHE/pg$major"
apt_dir="$HOLDFAST_CACHE/apt-$suite"
bin="$target/usr/lib/postgresql/$major/bin"
libs="$target/usr/lib/x86_64-linux-gnu"

codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
find_uri() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' "Codename: $codename" | head -n 1
}
uri=$(find_uri)
if [ -z "$uri" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -q
    uri=$(find_uri)
fi
[ -n "$uri" ] || { echo "setup: this machine's apt knows no Debian archive; run: apt-get update" >&2; exit 1; }

echo "setup: fetching PostgreSQL $major of $suite"
rm -rf "$target" "$target.new" "$apt_dir"
mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial" "$apt_dir/etc/preferences.d"
: > "$apt_dir/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" > "$apt_dir/etc/sources.list"
# The machine's apt.conf.d stays in force: proxies are configured there.
cat > "$apt_dir/apt.conf" <<CONF
Dir::State "$apt_dir";
Dir::State::status "$apt_dir/status";
Dir::State::lists "$apt_dir/lists";
Dir::Cache "$apt_dir/cache";
Dir::Etc::sourcelist "$apt_dir/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "$apt_dir/etc/preferences.d";
APT::Sandbox::User "root";
CONF
export APT_CONFIG="$apt_dir/apt.conf"
apt-get update -q

# Only what the programs load: no Perl, no package tooling, no LLVM (just-in-time compilation stays off without it).
packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances "postgresql-$major" | grep -E '^(lib|zlib)' | grep -Ev '^lib(llvm|z3|perl|debconf|.*-perl$)' | sort -u)
mkdir "$apt_dir/debs"
# shellcheck disable=SC2086 # a list of words on purpose
(cd "$apt_dir/debs" && apt-get download -q "postgresql-$major" "postgresql-client-$major" $packages)

for deb in "$apt_dir"/debs/*.deb; do
    dpkg-deb -x "$deb" "$target.new"
done
rm -rf "$target.new/usr/share/doc" "$target.new/usr/share/man" "$target.new/usr/share/locale" \
    "$target.new/usr/lib/postgresql/$major/lib/bitcode"
mv "$target.new" "$target"

for program in "$bin"/*; do
    [ -L "$program" ] && continue
    head -c 4 "$program" | grep -q ELF || continue
    patchelf --set-interpreter "$libs/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libs" "$program"
done

"$bin/postgres" --version
"$bin/initdb" --version
rm -rf "$apt_dir"
