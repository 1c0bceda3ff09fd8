#!/bin/sh
# Process 1 of the native guest: a read-only view of the host's files, memory over all that is written to, then the zoo
# and what the guest was started for. SHARE, the host's folder to share, comes from the kernel's command line.
LAB=/run/lab
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

hostfs() { # hostfs [ro,]HOST-FOLDER FOLDER; only the old system call takes an option that is only a path
    LIBMOUNT_FORCE_MOUNT2=always mount -t hostfs -o "$1" none "$2"
}

mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts none /dev/pts
for folder in /dev/shm /run /tmp /var/tmp; do
    mount -t tmpfs none $folder
done
mkdir -p $LAB /run/lock /run/udev /run/home
hostfs "$SHARE" $LAB
. $LAB/settings
. $LAB/common.sh
export HOME=/run/home
environment
# All drivers are in the kernel, which modprobe must know, or it fails.
export MODPROBE_OPTIONS="-d $MODULES"

leave() {
    sync
    python -I -S -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)' # RB_POWER_OFF
    exit "$1"
}

# The console is the kernel's; what the command says goes to two more, each of which the host hears by itself.
[ "$MODE" = shell ] || {
    stty -F /dev/tty1 raw -echo
    stty -F /dev/tty2 raw -echo
    exec >/dev/tty1 2>/dev/tty2
}

folders() {
    for folder in "$ROOT" "$VENV" "$CACHE"; do
        [ -d "$folder" ] && continue # unless one of the above is mounted over it
        mkdir -p "$folder"
        hostfs "ro,$folder" "$folder" || die "no $folder in the guest"
    done
    ln -s /proc/self/fd /dev/fd
    ln -s /proc/self/fd/0 /dev/stdin
    ln -s /proc/self/fd/1 /dev/stdout
    ln -s /proc/self/fd/2 /dev/stderr
    mount -t debugfs none /sys/kernel/debug
    mount -t cgroup2 none /sys/fs/cgroup
    ip link set lo up
}

gadget_file() { # the guest makes them all itself, before
    :
}

devices() {
    quiet_udev
    : >/run/udev/rules.d/80-drivers.rules # there is no module to load
    # What was there before needs no rules: the kernel made its nodes.
    gadgets 90%
    PYTHONPATH="$ROOT/tools" python -m labkit.fill "$ZOO" /run/gadgets || die "cannot make the zoo's files"
    # udev comes after the zoo: its events for these devices would double the time of the start.
    bring_up
    /lib/systemd/systemd-udevd --daemon 2>$LAB/udevd.log || die "no udevd: $(cat $LAB/udevd.log)"
    udevadm settle --timeout=60
}

# A program's output must be no terminal, and must be there before the end is announced. A program that was left
# running may keep the pipes.
piped() {
    mkfifo /run/out /run/err
    cat /run/out & out=$!
    cat /run/err >&2 & err=$!
    setsid --wait "$@" >/run/out 2>/run/err
    status=$?
    (sleep 5 && kill $out $err) & limit=$!
    wait $out $err
    kill $limit
    return $status
}

folders
devices
cd "$ROOT" || die "no $ROOT in the guest"
if [ "$MODE" = shell ]; then
    cat $LAB/welcome
    PS1='lab:\w# ' setsid --ctty --wait bash --norc -i
    finish $?
fi
printf '%s' "$BEGIN" >&2
printf '%s' "$BEGIN"
piped sh $LAB/command
finish $?
