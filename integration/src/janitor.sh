# Takes down everything that lives in one scratch directory ($1) when standard input closes: when the test drops its
# guard, and just as well when the test was killed. Runs in a session of its own so that no signal to the test ends it.
#
# Nothing outside the directory is touched: processes are matched by naming it, standing in it or being in a network
# namespace that is kept in it, mounts and loop devices by lying in it.
scratch=$1
trap '' HUP INT TERM QUIT
cat > /dev/null

mounts() { # newest first
    awk -v below="$scratch/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | tac
}

inhabitants() { # of network namespaces
    awk -v below="$scratch/" 'index($5, below) == 1 && $4 ~ /^net:/ { print $4 }' /proc/self/mountinfo |
        tr -d '[]' | cut -d : -f 2 | while read -r number; do
        find /proc/[0-9]*/ns/net -maxdepth 0 -lname "net:\\[$number\\]" 2> /dev/null
    done
}

processes() { # all but this session
    {
        grep -lsaF -- "$scratch/" /proc/[0-9]*/cmdline
        find /proc/[0-9]*/cwd -maxdepth 0 \( -lname "$scratch" -o -lname "$scratch/*" \) 2> /dev/null
        inhabitants
    } | cut -d / -f 3 | sort -un | while read -r pid; do
        session=$(sed 's/.*) //' "/proc/$pid/stat" 2> /dev/null | cut -d ' ' -f 4)
        [ "$session" = $$ ] || [ -z "$session" ] || echo "$pid"
    done
}

# A frozen file system would hold everything that follows.
mounts | while read -r mount; do
    fsfreeze --unfreeze "$mount" 2> /dev/null
done

# Engines last and gently: their shared memory outlives a SIGKILL.
for pid in $(processes); do
    case $(cat "/proc/$pid/comm" 2> /dev/null) in
        postgres) kill -QUIT "$pid" 2> /dev/null ;;
        *) kill -KILL "$pid" 2> /dev/null ;;
    esac
done
left=50
while [ "$left" -gt 0 ] && [ -n "$(processes)" ]; do
    [ "$left" -gt 30 ] || for pid in $(processes); do kill -KILL "$pid" 2> /dev/null; done
    sleep 0.1
    left=$((left - 1))
done

mounts | while read -r mount; do
    umount "$mount" 2> /dev/null || umount --lazy "$mount" 2> /dev/null
done
losetup --noheadings --raw --output NAME,BACK-FILE 2> /dev/null | while read -r device backing; do
    case $backing in
        "$scratch"/*) losetup --detach "$device" ;;
    esac
done
[ -z "$(mounts)" ] || exit 1
# The engine's copies of certificates lie where only root writes: its configuration says where.
sed -n "s/^ssl_cert_file = '\(\/run\/holdfast\.tls\/[^'\/]*\)\/.*/\1/p" "$scratch"/*/state/engine/postgresql.conf 2> /dev/null |
    while read -r copies; do
        rm -rf "$copies"
    done
chattr -R -f -i "$scratch" 2> /dev/null
rm -rf --one-file-system "$scratch"
