#!/bin/sh
# Debian packages and users. Does nothing when all is there; otherwise needs root.
#
# Installing an engine's package would make and start a cluster of its own. It does neither here: a drop-in says
# `create_main_cluster = false`, and policy-rc.d refuses starts, while the installation runs. Both are put back. The
# load balancer's package would also start at the next boot: a service that comes by us is switched off.
set -eu

packages="xfsprogs e2fsprogs util-linux iproute2 nftables haproxy postgresql-15 postgresql-contrib patchelf python3-venv jq gcc libc6-dev curl ca-certificates"

missing=""
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done

# The agent's, and that of an engine whose packages make none.
new_users=""
for user in holdfast mysql; do
    id "$user" >/dev/null 2>&1 || new_users="$new_users $user"
done

[ -n "$missing$new_users" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    # Development without root runs the directory kind in one user and needs no user of its own.
    [ -n "$missing" ] || exit 0
    echo "setup: as root, run: apt-get install$missing" >&2
    exit 1
fi

if [ -n "$missing" ]; then
    dropin=/etc/postgresql-common/createcluster.d/holdfast-no-main-cluster.conf
    policy=/usr/sbin/policy-rc.d
    saved=$(mktemp -d)
    restore() {
        rm -f "$dropin"
        if [ -e "$saved/policy-rc.d" ]; then
            cp -p "$saved/policy-rc.d" "$policy"
        else
            rm -f "$policy"
        fi
        rm -rf "$saved"
    }
    [ ! -e "$policy" ] || cp -p "$policy" "$saved/policy-rc.d"
    trap restore EXIT
    trap 'exit 130' INT TERM
    mkdir -p "$(dirname "$dropin")"
    echo 'create_main_cluster = false' > "$dropin"
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"

    echo "setup: installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # a list of words on purpose
    apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold $missing
    case " $missing " in *" haproxy "*) update-rc.d haproxy disable ;; esac
fi

for user in $new_users; do
    echo "setup: adding the system user $user"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
done
