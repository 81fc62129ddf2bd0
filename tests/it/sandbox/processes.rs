//! `/proc`, descriptors, the environment, and other processes: what a process can take hold of without a path.

use super::{Probe, anyone, attack, root, untried};

const PROBES: &[Probe] = &[
    anyone("a secret in the own environment", "env | grep -q $SECRET"),
    anyone("a secret in any environment", "cat /proc/[0-9]*/environ | grep -qa $SECRET"),
    anyone("the environment of the first process", "grep -qa $SECRET /proc/$FIRST/environ"),
    anyone("an inherited file", "grep -q $SECRET <&7"),
    anyone("an inherited file with a high number", "grep -q $SECRET /proc/self/fd/251"),
    anyone("an inherited directory", "grep -q $SECRET /proc/self/fd/8/canary"),
    anyone("an inherited directory, by dots", "ls /proc/self/fd/8/../out | grep -q canary"),
    anyone("an inherited file to write to", "echo x >&9").seen("grep -q x $OUT/sink"),
    anyone(
        "any descriptor of any process",
        "for f in /proc/[0-9]*/fd/*; do [ -f $f ] && head -c 99 $f; done | grep -qa $SECRET",
    ),
    anyone("more than three descriptors", "[ $(ls /proc/self/fd | wc -l) -gt 4 ]"),
    anyone("read back what the caller's output holds", "grep -q $SECRET /proc/self/fd/2"),
    anyone("read it by its other name", "grep -q $SECRET /dev/stderr"),
    anyone("empty the caller's output", ": > /proc/self/fd/2")
        .seen("! grep -q $SECRET $OUT/transcript"),
    anyone("the host's files by /proc/self/root", "grep -q $SECRET /proc/self/root$OUT/canary"),
    anyone("the host's files by another's root", "grep -q $SECRET /proc/$VICTIM/root$OUT/canary"),
    anyone(
        "the host's files by the first process's root",
        "grep -q $SECRET /proc/$FIRST/root$OUT/canary",
    ),
    anyone("the directory of the first process", "ls /proc/$FIRST/cwd/"),
    anyone("the program of the first process", "head -c 4 /proc/$FIRST/exe | grep -q ELF"),
    anyone("the descriptors of the first process", "ls /proc/$FIRST/fd/ | grep -q ."),
    anyone("the map of the first process", "head -c 1 /proc/$FIRST/maps | grep -q ."),
    anyone("the map of its threads", "head -c 1 /proc/$FIRST/task/$FIRST/maps | grep -q ."),
    anyone("open the memory of the first process", ": < /proc/$FIRST/mem"),
    untried(
        "write to the program of the first process",
        ": >> /proc/1/exe",
        "a running program is never writable",
    ),
    anyone("attach to the first process", "$PROBE look attach $FIRST"),
    anyone("seize the first process", "$PROBE look seize $FIRST"),
    anyone("read the memory of the first process", "$PROBE look memory $FIRST"),
    anyone("take a descriptor of the first process", "$PROBE look descriptor $FIRST"),
    anyone("set a limit of the first process", "$PROBE look limit $FIRST"),
    anyone("take the first process's turn", "$PROBE look turn $FIRST"),
    anyone("make the first process patient", "$PROBE look nice $FIRST"),
    untried(
        "compare with the first process",
        "$PROBE look compare 1",
        "kcmp is not in every kernel",
    ),
    anyone(
        "attach to an own process",
        "sleep 9 & $PROBE look attach $!; e=$?; kill -9 $!; exit $e",
    ),
    anyone(
        "read an own process's memory",
        "sleep 9 & sleep .1; $PROBE look memory $!; e=$?; kill -9 $!; exit $e",
    ),
    anyone(
        "take a descriptor of an own process",
        "sleep 9 & sleep .1; $PROBE look descriptor $!; e=$?; kill -9 $!; exit $e",
    ),
    anyone("see a process of the host", "cat /proc/[0-9]*/cmdline | grep -qa '86421[.]77'"),
    anyone("signal a process of the host", "kill -0 $VICTIM"),
    anyone("hold on to a process of the host", "$PROBE pidfd $VICTIM"),
    anyone(
        "change a host process's priority",
        "grep -qa sleep /proc/$VICTIM/cmdline && renice -n 19 -p $VICTIM",
    ),
    root(
        "set core_pattern",
        "v=$(cat /proc/sys/kernel/core_pattern) && echo \"$v\" > /proc/sys/kernel/core_pattern",
    ),
    root(
        "set the module loader",
        "v=$(cat /proc/sys/kernel/poweroff_cmd) && echo \"$v\" > /proc/sys/kernel/poweroff_cmd",
    ),
    root(
        "set the host's name",
        "v=$(cat /proc/sys/kernel/hostname) && echo \"$v\" > /proc/sys/kernel/hostname",
    ),
    root(
        "set a bound of the host",
        "v=$(cat /proc/sys/fs/file-max) && echo \"$v\" > /proc/sys/fs/file-max",
    ),
    untried(
        "allow user namespaces",
        "f=/proc/sys/user/max_user_namespaces; v=$(cat $f) && echo \"$v\" > $f",
        "root of a container may not",
    ),
    root("forward packets", "f=/proc/sys/net/ipv4/ip_forward; v=$(cat $f) && echo \"$v\" > $f"),
    untried(
        "press a system request key",
        "[ $(stat -f -c %T /proc/sysrq-trigger) = proc ] && : >> /proc/sysrq-trigger",
        "not in every kernel",
    ),
    untried(
        "read the kernel's memory",
        "head -c 4 /proc/kcore | grep -q ELF",
        "not in every kernel",
    ),
    root("find the kernel's addresses", "grep -qv '^0000000000000000 ' /proc/kallsyms"),
    root("find the machine's addresses", "grep -qv 00000000-00000000 /proc/iomem"),
    untried("follow the machine's timers", "grep -q . /proc/timer_list", "not in every kernel"),
    root("read the kernel's keys", "cat /proc/keys | grep -q ."),
    anyone("read the boot parameters", "grep -q . /proc/cmdline"),
    untried(
        "read the kernel's configuration",
        "[ $(head -c 2 /proc/config.gz | wc -c) = 2 ]",
        "not in every kernel",
    ),
    root("read the kernel's allocations", "grep -q . /proc/slabinfo"),
    anyone("see the disks of the host", "grep -q . /proc/diskstats"),
    anyone("see the file systems of the host's disks", "ls -d /proc/fs/*/* | grep -q ."),
    anyone("see the cards of the machine", "grep -q . /proc/bus/pci/devices"),
    anyone("see the interrupts of the machine", "grep -q : /proc/interrupts"),
    root("be root of the host", "[ \"$(awk '{print $2}' /proc/self/uid_map)\" = 0 ]"),
    root("have a capability", "grep -q 'CapEff:.*[1-9a-f]' /proc/self/status"),
    anyone("have a capability within bounds", "grep -q 'CapBnd:.*[1-9a-f]' /proc/self/status"),
    anyone("gain privileges by a program", "grep -q 'NoNewPrivs:.0' /proc/self/status"),
    anyone("call unfiltered", "grep -q 'Seccomp:.0' /proc/self/status"),
    untried(
        "survive every shortage of memory",
        "echo -1000 > /proc/self/oom_score_adj",
        "root of a container may not",
    ),
];

#[test]
fn no_process_reaches_beyond_its_session() {
    attack("processes", PROBES);
}
