//! Device nodes, mounts, namespaces and terminals.

use super::{Probe, anyone, attack, root, untried};

const PROBES: &[Probe] = &[
    root("make a character device", "$PROBE char-device node"),
    root("make a block device", "$PROBE block-device node"),
    root(
        "make a device in memory",
        "mknod /tmp/casemate-node-$$ c 1 3; e=$?; rm -f /tmp/casemate-node-$$; exit $e",
    ),
    root(
        "make a device among the others",
        "mknod /dev/casemate-node c 1 3; e=$?; rm -f /dev/casemate-node; exit $e",
    ),
    anyone(
        "find a device that nobody needs",
        "find /dev -path /dev/pts -prune -o '(' -type b -o -type c ')' -print \
         | grep -qvxE '/dev/(null|zero|full|random|urandom|tty)'",
    ),
    untried(
        "read a disk",
        "cat /dev/[svx]d[a-z] /dev/nvme[0-9]n1 | head -c 1 | grep -qa .",
        "a container has none",
    ),
    untried(
        "read the kernel's log",
        "timeout 1 head -c 1 /dev/kmsg | grep -q .",
        "a container may have none",
    ),
    root("mount memory", "mount -t tmpfs none . && umount ."),
    root("mount the root again", "mkdir m && mount --bind / m && umount m"),
    root("mount processes", "mkdir m && mount -t proc none m && umount m"),
    root("mount devices", "mkdir m && mount -t sysfs none m && umount m"),
    root("mount terminals", "mkdir m && mount -t devpts none m && umount m"),
    root(
        "mount an overlay",
        "mkdir m u w && mount -t overlay -o lowerdir=/etc,upperdir=u,workdir=w none m && umount m",
    ),
    untried(
        "make the system writable",
        "mount -o remount,bind,rw /usr && touch /usr/x",
        "it would change the machine",
    ),
    untried(
        "make the root writable",
        "mount -o remount,bind,rw / && touch /x",
        "it would change the machine",
    ),
    untried(
        "uncover what is masked",
        "umount /proc/keys || umount -l /proc/acpi",
        "nothing is masked outside",
    ),
    untried("uncover the settings", "umount -l /proc/sys", "it is no mount outside"),
    untried("uncover the workspace", "umount -l $WORK", "it is no mount outside"),
    untried("move the workspace", "mkdir m && mount --move $WORK m", "it is no mount outside"),
    root("open a tree", "$PROBE reach open_tree"),
    root("open a tree with attributes", "$PROBE reach open_tree_attr"),
    root("move a mount", "$PROBE reach move_mount"),
    root("open a file system", "$PROBE reach fsopen"),
    root("configure a file system", "$PROBE reach fsconfig"),
    root("mount a file system", "$PROBE reach fsmount"),
    root("pick a file system", "$PROBE reach fspick"),
    root("change a mount", "$PROBE reach mount_setattr"),
    root("mount by the kernel's old call", "$PROBE reach mount"),
    root("unmount by the kernel's call", "$PROBE reach umount2"),
    root("change the root", "$PROBE reach pivot_root"),
    root("change the root of a process", "$PROBE reach chroot"),
    anyone("show the host's mounts", "$PROBE reach statmount"),
    anyone("list the host's mounts", "$PROBE reach listmount"),
    anyone("a new user namespace", "$PROBE unshare 0x10000000"),
    anyone("a new user namespace, by a program", "unshare -U true"),
    anyone("a new user namespace, by clone", "$PROBE clone 0x10000000"),
    anyone("a new user namespace, by clone3", "$PROBE clone3 0x10000000"),
    anyone("new user and mount namespaces", "unshare -Urm true"),
    anyone("new user and network namespaces", "unshare -Urn true"),
    root("a new mount namespace", "$PROBE unshare 0x20000"),
    root("a new network namespace", "$PROBE unshare 0x40000000"),
    root("a new process namespace", "$PROBE unshare 0x20000000"),
    root("a new time namespace", "$PROBE unshare 0x80"),
    root("a new mount namespace, by clone", "$PROBE clone 0x20000"),
    root("a new cgroup namespace, by clone3", "$PROBE clone3 0x02000000"),
    root("enter the first process's namespace", "$PROBE enter /proc/$FIRST/ns/net"),
    root("enter the own namespace", "$PROBE enter /proc/self/ns/net"),
    root("type into a terminal", "$PROBE terminal 0x5412"),
    root("type into a terminal, with high bits", "$PROBE terminal 0x100005412"),
    anyone("change a terminal's discipline", "$PROBE terminal 0x5423"),
    root("take over the console", "$PROBE terminal 0x541d"),
    untried("type into the console", "$PROBE terminal 0x541c", "TIOCLINUX works on consoles only"),
    root("swap to a file", "$PROBE reach swapon"),
    root("stop swapping", "$PROBE reach swapoff"),
    anyone("set quotas", "$PROBE reach quotactl"),
    anyone("set quotas by a file", "$PROBE reach quotactl_fd"),
];

#[test]
fn no_device_mount_or_namespace_can_be_had() {
    attack("devices and mounts", PROBES);
}
