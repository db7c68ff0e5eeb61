#!/bin/sh
# MySQL 9 of Debian's unstable suite into .cache/mysql: Debian 12 and 13 have no MySQL server at all.
set -eu
. "$HOLDFAST_ROOT/scripts/setup/lib/suite.sh"

target="$HOLDFAST_CACHE/mysql"
apt_dir="$HOLDFAST_CACHE/apt-mysql"
libs="$target/usr/lib/x86_64-linux-gnu"

echo "setup: fetching MySQL"
rm -rf "$target" "$target.new"
apt_of_suite sid "$apt_dir"
# shellcheck disable=SC2046 # a list of words on purpose
unpack "$apt_dir/debs" "$target.new" mysql-server-core mysql-client-core \
    $(libraries_of mysql-server-core mysql-client-core)
mv "$target.new" "$target"
relocate "$libs" "$target"/usr/sbin/* "$target"/usr/bin/*

"$target/usr/sbin/mysqld" --version
"$target/usr/bin/mysql" --version
rm -rf "$apt_dir"
