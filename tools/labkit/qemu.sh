#!/bin/sh
# Runs in the guest in QEMU: brings up the zoo, then runs what it was started for.
LAB=/run/lab
. $LAB/settings
. $LAB/common.sh
export HOME=/root
environment

leave() {
    exit "$1"
}

disk() { # the block device with this serial
    for block in /sys/block/vd*; do
        [ "$(cat "$block/serial" 2>/dev/null)" = "$1" ] && echo "/dev/${block##*/}" && return
    done
    return 1
}

present() { disk "$1" >/dev/null; }

image() { # image SERIAL: mounts it at /run/images/SERIAL
    until_true 60 present "$1" || die "the guest has no disk $1"
    mkdir -p "/run/images/$1"
    mount -t ext4 -o ro,noatime "$(disk "$1")" "/run/images/$1" || die "cannot mount the image $1"
}

over() { # over FOLDER IMAGE-FOLDER
    mount --bind "/run/images/$2" "$1" || die "cannot mount $2 over $1"
}

# 9p keeps no pages: the interpreter and its libraries would be read again at each start.
over_files() {
    while read -r number file; do
        mount --bind "/run/images/python/files/$number" "$file" || die "cannot mount over $file"
    done </run/images/python/files/list
}

gadget_file() { # as the host made it; in the guest's memory, so that tests see what the gadget wrote
    cp "/run/zoo/$1" /run/gadgets/
}

modules() {
    modprobe -a "$@" 2>$LAB/modprobe.log || die "modprobe: $(cat $LAB/modprobe.log)"
}

zoo() {
    quiet_udev
    udevadm control --reload
    modules virtio_blk ext4
    # The controller comes last, so that its devices find their drivers; see UNWANTED in qemu.py.
    { modprobe -a sg sd_mod sr_mod usb-storage uas && modprobe xhci-pci; } &
    image python
    image checkout
    over_files
    over "$STDLIB" python/stdlib
    # The modules of a fetched kernel are in the cache: they must not vanish under the checkout's image.
    mkdir -p /run/images/venv /run/images/cache
    mount --bind "$VENV" /run/images/venv || die "no $VENV in the guest"
    mount --bind "$CACHE" /run/images/cache || die "no $CACHE in the guest"
    over "$ROOT" checkout
    over "$VENV" venv
    over "$CACHE" cache
    over "$SITE" python/site
    wait
    modules libcomposite usb_f_mass_storage
    modprobe dummy_hcd is_super_speed=Y num="$(grep -c ^gadget_plug $LAB/gadgets)" || die "no dummy_hcd"
    gadgets 256M
    bring_up
    udevadm settle --timeout=60
}

zoo
cd "$ROOT" || die "no $ROOT in the guest"
if [ "$MODE" = shell ]; then
    cat $LAB/welcome
    PS1='lab:\w# ' bash --norc -i
    finish $?
fi
printf '%s' "$BEGIN" >&2
printf '%s' "$BEGIN"
sh $LAB/command
finish $?
