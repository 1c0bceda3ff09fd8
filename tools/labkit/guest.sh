#!/bin/sh
# Runs in the guest: brings up the zoo, then runs what it was started for.
LAB=/run/lab
. $LAB/settings
export HOME=/root LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SCSIUSB_LAB=$LAB
export PATH="$VENV/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
for folder in /usr/lib/linux-tools/*/; do
    [ -x "$folder/usbip" ] && PATH="$PATH:$folder"
done

die() {
    echo "lab: $*" >&2
    finish 125
}

finish() {
    dmesg >$LAB/dmesg
    echo "$1" >$LAB/status.new && mv $LAB/status.new $LAB/status
    if [ "$MODE" != shell ]; then
        printf '%s' "$END" >&2
        printf '%s' "$END"
    fi
    exit "$1"
}

# until SECONDS COMMAND...: polls, because sysfs announces nothing.
until_true() {
    tries=$(($1 * 10))
    shift
    while ! "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
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

# These look into every disk each time the kernel binds it, and nothing here reads what they find.
quiet_udev() {
    mkdir -p /run/udev/rules.d
    for rules in 60-persistent-storage 60-cdrom_id 60-persistent-storage-tape 64-btrfs 69-lvm 78-sound-card 80-udisks2; do
        : >"/run/udev/rules.d/$rules.rules"
    done
    udevadm control --reload
}

gadget() { # gadget NAME SPEED SERIAL
    root=/sys/kernel/config/usb_gadget/$1
    mkdir "$root" "$root/strings/0x409" "$root/configs/c.1" "$root/functions/mass_storage.0"
    echo 0x1d6b >"$root/idVendor"
    echo 0x0104 >"$root/idProduct"
    echo "$2" >"$root/max_speed"
    echo "$3" >"$root/strings/0x409/serialnumber"
    echo SCSIUSB >"$root/strings/0x409/manufacturer"
    echo "$1" >"$root/strings/0x409/product"
}

gadget_lun() { # gadget_lun NAME LUN FILE|- CDROM RO REMOVABLE
    function=/sys/kernel/config/usb_gadget/$1/functions/mass_storage.0
    lun=$function/lun.$2
    [ -d "$lun" ] || mkdir "$lun"
    echo "$4" >"$lun/cdrom"
    echo "$5" >"$lun/ro"
    echo "$6" >"$lun/removable"
    printf '%-8s%-16s%s' SCSIUSB "$1 $2" 0001 >"$lun/inquiry_string"
    if [ "$3" != - ]; then
        cp "/run/zoo/$3" /run/gadgets/
        echo "/run/gadgets/$3" >"$lun/file"
    fi
}

gadget_plug() { # the first controller that has no gadget yet
    root=/sys/kernel/config/usb_gadget/$1
    ln -s "$root/functions/mass_storage.0" "$root/configs/c.1/"
    for controller in /sys/class/udc/*; do
        [ -n "$(cat "$controller/function")" ] && continue
        echo "${controller##*/}" >"$root/UDC" && return
    done
    die "no controller for the gadget $1"
}

bound() {
    [ "$(find /sys/bus/usb/drivers/usb-storage /sys/bus/usb/drivers/uas -name '*:*' | wc -l)" -ge "$INTERFACES" ]
}

modules() {
    modprobe -a "$@" 2>$LAB/modprobe.log || die "modprobe: $(cat $LAB/modprobe.log)"
}

zoo() {
    quiet_udev
    modules virtio_blk ext4
    # The controller comes last, so that its devices find their drivers; see UNWANTED in guest.py.
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
    mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
    mkdir -p /run/gadgets
    mount -t tmpfs -o size=256M none /run/gadgets
    . $LAB/gadgets
    until_true 120 bound || die "the kernel's drivers did not bind all of the zoo: $(lsusb -t)"
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
