# Programs of a newer Debian suite, on a machine that stays what it is. To be sourced.
#
# apt runs with directories of its own, a package database that is empty, and a sources list whose address is read
# from the machine's own apt configuration; packages are downloaded and unpacked, never installed. The programs then
# get the unpacked libc as their interpreter and the unpacked libraries as their RPATH, which (unlike RUNPATH) also
# holds for the modules that a server loads.

# apt_of_suite SUITE DIR: from here on apt-get and apt-cache of this shell know that suite alone.
apt_of_suite() {
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    uri=$(debian_archive)
    if [ -z "$uri" ] && [ "$(id -u)" = 0 ]; then
        apt-get update -q
        uri=$(debian_archive)
    fi
    [ -n "$uri" ] || { echo "setup: this machine's apt knows no Debian archive; run: apt-get update" >&2; exit 1; }

    rm -rf "$2"
    mkdir -p "$2/lists/partial" "$2/cache/archives/partial" "$2/etc/preferences.d"
    : > "$2/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $1 main" > "$2/etc/sources.list"
    # The machine's apt.conf.d stays in force: proxies are configured there.
    cat > "$2/apt.conf" <<CONF
Dir::State "$2";
Dir::State::status "$2/status";
Dir::State::lists "$2/lists";
Dir::Cache "$2/cache";
Dir::Etc::sourcelist "$2/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "$2/etc/preferences.d";
APT::Sandbox::User "root";
CONF
    export APT_CONFIG="$2/apt.conf"
    apt-get update -q
}

debian_archive() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' "Codename: $codename" | head -n 1
}

# libraries_of PACKAGE...: the packages that hold what those load. No Perl, no package tooling, no LLVM (just-in-time
# compilation stays off without it).
libraries_of() {
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$@" | grep -E '^(lib|zlib)' | grep -Ev '^lib(llvm|z3|perl|debconf|.*-perl$)' | sort -u
}

# unpack DIR TARGET PACKAGE...: downloads to DIR and unpacks to TARGET, without documentation.
unpack() (
    debs=$1 target=$2
    shift 2
    mkdir -p "$debs"
    (cd "$debs" && apt-get download -q "$@")
    for deb in "$debs"/*.deb; do
        dpkg-deb -x "$deb" "$target"
    done
    rm -rf "$target/usr/share/doc" "$target/usr/share/man" "$target/usr/share/locale"
)

# relocate LIBS PROGRAM...: programs that load their libraries from LIBS; what is no program is left as it is.
relocate() (
    libs=$1
    shift
    for program in "$@"; do
        [ -L "$program" ] && continue
        head -c 4 "$program" | grep -q ELF || continue
        patchelf --set-interpreter "$libs/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libs" "$program"
    done
)
