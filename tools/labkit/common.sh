# What both guests' scripts share; sourced. They set LAB and ROOT, and define `leave STATUS`, which ends the guest.

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
    leave "$1"
}

environment() {
    export LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SCSIUSB_LAB=$LAB SCSIUSB_LAB_KIND="$KIND"
    export PATH="$VENV/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    for folder in /usr/lib/linux-tools/*/; do
        [ -x "$folder/usbip" ] && PATH="$PATH:$folder"
    done
}

# until_true SECONDS COMMAND...: polls, because sysfs announces nothing.
until_true() {
    tries=$(($1 * 20))
    shift
    while ! "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.05
    done
}

# These look into every disk each time the kernel binds it, and nothing here reads what they find.
quiet_udev() {
    mkdir -p /run/udev/rules.d
    for rules in 60-persistent-storage 60-cdrom_id 60-persistent-storage-tape 64-btrfs 69-lvm 78-sound-card 80-udisks2; do
        : >"/run/udev/rules.d/$rules.rules"
    done
}

gadgets() { # makes the folder for their files, and a file system for their settings
    mkdir -p /run/gadgets
    mount -t tmpfs -o "size=$1" none /run/gadgets
    mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
}

gadget() { # gadget NAME SPEED SERIAL FUNCTION
    root=/sys/kernel/config/usb_gadget/$1
    mkdir "$root" "$root/strings/0x409" "$root/configs/c.1" "$root/functions/$4"
    echo 0x1d6b >"$root/idVendor"
    echo 0x0104 >"$root/idProduct"
    echo "$2" >"$root/max_speed"
    echo "$3" >"$root/strings/0x409/serialnumber"
    echo SCSIUSB >"$root/strings/0x409/manufacturer"
    echo "$1" >"$root/strings/0x409/product"
}

gadget_lun() { # gadget_lun NAME LUN FILE|- CDROM RO REMOVABLE BLOCK-SIZE
    function=/sys/kernel/config/usb_gadget/$1/functions/mass_storage.0
    lun=$function/lun.$2
    [ -d "$lun" ] || mkdir "$lun"
    echo "$4" >"$lun/cdrom"
    echo "$5" >"$lun/ro"
    echo "$6" >"$lun/removable"
    printf '%-8s%-16s%s' SCSIUSB "$1 $2" 0001 >"$lun/inquiry_string"
    [ "$3" != - ] || return 0
    gadget_file "$3" # each guest has its own way to get it
    medium=/run/gadgets/$3
    # The gadget has a file in blocks of 512 bytes, or 2048 for a CD-ROM, and a block device in the device's own.
    case $4$7 in 0512 | 12048) ;; *) medium=$(losetup --find --show --sector-size "$7" "$medium") ;; esac
    echo "$medium" >"$lun/file"
}

target_lun() { # target_lun NAME FILE BYTES: the kernel's SCSI target with one disk
    target=/sys/kernel/config/target
    portal=naa.6001405c51050001
    group=$target/usb_gadget/$portal/tpgt_1
    mkdir -p "$target/core/fileio_0/$1" "$group/lun/lun_0" || die "no SCSI target for the gadget $1"
    echo "fd_dev_name=/run/gadgets/$2,fd_dev_size=$3" >"$target/core/fileio_0/$1/control"
    echo 1 >"$target/core/fileio_0/$1/enable"
    ln -s "$target/core/fileio_0/$1" "$group/lun/lun_0/"
    echo $portal >"$group/nexus"
    echo 1 >"$group/enable"
}

gadget_plug() { # gadget_plug NAME CONTROLLER
    root=/sys/kernel/config/usb_gadget/$1
    ln -s "$root"/functions/* "$root/configs/c.1/"
    echo "$2" >"$root/UDC" || die "no controller $2 for the gadget $1"
}

bound() { # starts no program: that would slow what it waits for
    count=0
    for interface in /sys/bus/usb/drivers/usb-storage/*:* /sys/bus/usb/drivers/uas/*:*; do
        [ -e "$interface" ] && count=$((count + 1))
    done
    [ "$count" -ge "$INTERFACES" ]
}

bring_up() { # plugs the gadgets, and waits until the kernel's drivers have every device
    . $LAB/gadgets
    until_true 120 bound || die "the kernel's drivers did not bind all of the zoo: $(lsusb -t)"
}
