//! Out of the workspace by the file system: paths, links, mounts' edges, and what is left behind for the host.

use super::{Probe, anyone, attack, root, untried};

const PROBES: &[Probe] = &[
    anyone("read by an absolute path", "grep -q $SECRET $OUT/canary"),
    anyone("read by dots", "grep -q $SECRET ../../out/canary"),
    anyone("read from the root on", "cd /; cd ..; grep -q $SECRET .$OUT/canary"),
    anyone("read through a symbolic link", "ln -s $OUT/canary link; grep -q $SECRET link"),
    anyone("read through a linked directory", "ln -s $OUT dir; grep -q $SECRET dir/canary"),
    anyone("list the neighbours of the workspace", "ls $WORK/.. | grep -q out"),
    anyone("hard link from outside", "ln $OUT/canary hard && grep -q $SECRET hard"),
    anyone(
        "rename from outside",
        "mv $OUT/canary mine && grep -q $SECRET mine; e=$?; mv mine $OUT/canary; exit $e",
    ),
    anyone("write by an absolute path", "mkdir -p $OUT; echo x > $OUT/written")
        .seen("[ -e $OUT/written ]"),
    anyone("write by dots", "mkdir -p ../../out; echo x > ../../out/dots").seen("[ -e $OUT/dots ]"),
    anyone("write through a symbolic link", "mkdir -p $OUT; ln -s $OUT/linked link; echo x > link")
        .seen("[ -e $OUT/linked ]"),
    anyone(
        "append through a linked directory",
        "mkdir -p $OUT; ln -s $OUT dir; echo x >> dir/target",
    )
    .seen("grep -q x $OUT/target"),
    anyone("remove outside", "rm $OUT/doomed").seen("[ ! -e $OUT/doomed ]"),
    anyone(
        "replace the workspace",
        "mv $WORK $WORK-moved && mkdir $WORK; [ -d $WORK-moved ]; e=$?
        rmdir $WORK && mv $WORK-moved $WORK; exit $e",
    ),
    anyone("change the mode of the neighbours", "chmod 777 $OUT")
        .seen("[ $(stat -c %a $OUT) = 777 ]"),
    root("leave by chroot", "$PROBE chroot-escape $OUT/canary"),
    root("reach a file by its handle", "$PROBE reach open_by_handle_at"),
    root("make a handle of a file", "$PROBE reach name_to_handle_at"),
    root("create a system file", "touch /usr/lib/casemate-probe && rm /usr/lib/casemate-probe"),
    root(
        "create a program",
        "touch /usr/local/bin/casemate-probe && rm /usr/local/bin/casemate-probe",
    ),
    root("create a setting", "touch /etc/casemate-probe && rm /etc/casemate-probe"),
    root("create at the root", "touch /casemate-probe && rm /casemate-probe"),
    root("open the table of users for writing", ": >> /etc/passwd"),
    root("open a program for writing", ": >> /usr/bin/env"),
    root("open the loader's cache for writing", ": >> /etc/ld.so.cache"),
    root("read the passwords", "[ -s /etc/shadow ] && cat /etc/shadow"),
    anyone("read the users of the host", "grep -q ^daemon: /etc/passwd"),
    anyone("look at the logs of the host", "[ -n \"$(ls -A /var/log)\" ]"),
    anyone("look at the state of the host", "[ -n \"$(ls -A /var/lib)\" ]"),
    anyone("look at the services of the host", "[ -n \"$(ls -A /run)\" ]"),
    anyone("look at the devices of the host", "[ -n \"$(ls -A /sys)\" ]"),
    anyone("leave a set-user-id program by chmod", "$PROBE set-id chmod left").seen("[ -u left ]"),
    anyone("leave one by fchmod", "$PROBE set-id fchmod left").seen("[ -u left ]"),
    anyone("leave one by fchmodat", "$PROBE set-id fchmodat left").seen("[ -u left ]"),
    anyone("leave one by fchmodat2", "$PROBE set-id fchmodat2 left").seen("[ -u left ]"),
    anyone("leave one by fchmodat with high bits", "$PROBE set-id high-bits left")
        .seen("[ -u left ]"),
    anyone("leave one by open", "$PROBE set-id open left").seen("[ -u left ]"),
    anyone("leave one by openat2", "$PROBE set-id openat2 left").seen("[ -u left ]"),
    anyone("leave one by creat", "$PROBE set-id creat left").seen("[ -u left ]"),
    anyone("leave one by mknod", "$PROBE set-id mknod left").seen("[ -u left ]"),
    anyone("leave one by mknodat", "$PROBE set-id mknodat left").seen("[ -u left ]"),
    anyone("leave one by a nameless file", "$PROBE set-id tmpfile left").seen("[ -u left ]"),
    anyone("leave a set-group-id program by chmod", "$PROBE set-id group left").seen("[ -g left ]"),
    anyone("leave one for a group by open", "$PROBE set-id open-group left").seen("[ -g left ]"),
    root("leave a program with capabilities", "$PROBE file-capability left"),
    root("leave a file that cannot be removed", "$PROBE immutable left"),
    untried("leave a device by a rename", "$PROBE whiteout left", "not on every file system")
        .seen("[ -c left ]"),
    anyone("hold back the host by a lease", "$PROBE lease held"),
];

#[test]
fn nothing_outside_of_the_workspace_is_read_or_changed() {
    attack("files", PROBES);
}
