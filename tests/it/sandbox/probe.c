// What an attacker would compile: raw system calls that a shell cannot make. `probe NAME [ARG...]` exits with 0 if the
// attack succeeds, and with anything else, or by a signal, if it is stopped.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/limits.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <grp.h>
#include <mqueue.h>
#include <unistd.h>

#define STOPPED 1
#define WON 0

// Call numbers are the same on every architecture since 424.
#define NR_STATMOUNT 457
#define NR_LISTMOUNT 458
#define NR_OPEN_TREE_ATTR 467
#define NR_FCHMODAT2 452
#define NR_MEMFD_SECRET 447
#define NR_FILE_SETATTR 469
#define NR_LISTNS 470

struct call {
    const char *name;
    long number;
    long a, b, c, d, e;
};

// Arguments that the kernel refuses or that change nothing, wherever it lets a caller come so far.
static const struct call CALLS[] = {
    {"keyctl", SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1},
    {"add_key", SYS_add_key, 0, 0, 0, 0, KEY_SPEC_PROCESS_KEYRING},
    {"request_key", SYS_request_key, 0, 0, 0, 0},
    {"bpf", SYS_bpf, 0, 0, 0},
    {"io_uring_setup", SYS_io_uring_setup, 1, 0},
    {"io_uring_enter", SYS_io_uring_enter, -1, 0, 0, 0},
    {"io_uring_register", SYS_io_uring_register, -1, 0, 0, 0},
    {"userfaultfd", SYS_userfaultfd, 1},
    {"perf_event_open", SYS_perf_event_open, 0, 0, -1, -1},
    {"unshare", SYS_unshare, 0},
    {"setns", SYS_setns, -1, 0},
    {"mount", SYS_mount, 0, -1, 0, 0, 0},
    {"umount2", SYS_umount2, -1, 0},
    {"pivot_root", SYS_pivot_root, -1, -1},
    {"chroot", SYS_chroot, -1},
    {"open_tree", SYS_open_tree, -1, 0, 0},
    {"open_tree_attr", NR_OPEN_TREE_ATTR, -1, 0, 0, 0, 0},
    {"move_mount", SYS_move_mount, -1, 0, -1, 0, 0},
    {"fsopen", SYS_fsopen, 0, 0},
    {"fsconfig", SYS_fsconfig, -1, 0, 0, 0, 0},
    {"fsmount", SYS_fsmount, -1, 0, 0},
    {"fspick", SYS_fspick, -1, 0, 0},
    {"mount_setattr", SYS_mount_setattr, -1, 0, 0, 0, 0},
    {"statmount", NR_STATMOUNT, 0, 0, 0, 0},
    {"listmount", NR_LISTMOUNT, 0, 0, 0, 0},
    {"memfd_secret", NR_MEMFD_SECRET, 0},
    {"file_setattr", NR_FILE_SETATTR, -1, 0, 0, 0, 0},
    {"listns", NR_LISTNS, 0, 0, 0, 0},
    {"ptrace", SYS_ptrace, PTRACE_TRACEME, 0, 0, 0},
    {"process_vm_readv", SYS_process_vm_readv, 1, 0, 0, 0, 0},
    {"process_vm_writev", SYS_process_vm_writev, 1, 0, 0, 0, 0},
    {"process_madvise", SYS_process_madvise, -1, 0, 0, 0, 0},
    {"kcmp", SYS_kcmp, 1, 1, 0, 0, 0},
    {"pidfd_getfd", SYS_pidfd_getfd, -1, 0, 0},
    {"init_module", SYS_init_module, 0, 0, 0},
    {"finit_module", SYS_finit_module, -1, 0, 0},
    {"delete_module", SYS_delete_module, 0, 0},
    {"reboot", SYS_reboot, 0, 0, 0, 0},
    {"syslog", SYS_syslog, 10, 0, 0},
    {"acct", SYS_acct, -1},
    {"name_to_handle_at", SYS_name_to_handle_at, -1, 0, 0, 0, 0},
    {"open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0},
    {"fanotify_init", SYS_fanotify_init, 0, 0},
    {"fanotify_mark", SYS_fanotify_mark, -1, 0, 0, 0, 0},
    {"quotactl", SYS_quotactl, 0, 0, 0, 0},
    {"quotactl_fd", SYS_quotactl_fd, -1, 0, 0, 0},
    {"swapon", SYS_swapon, -1, 0},
    {"swapoff", SYS_swapoff, -1},
    {"clock_settime", SYS_clock_settime, 0, -1},
    {"clock_adjtime", SYS_clock_adjtime, 0, -1},
    {"adjtimex", SYS_adjtimex, -1},
    {"settimeofday", SYS_settimeofday, -1, 0},
    {"sethostname", SYS_sethostname, -1, 1},
    {"setdomainname", SYS_setdomainname, -1, 1},
    {"move_pages", SYS_move_pages, 0, 0, 0, 0, 0},
    {"migrate_pages", SYS_migrate_pages, 0, 0, 0, 0},
    {"mbind", SYS_mbind, 0, 0, 0, 0, 0},
    {"set_mempolicy", SYS_set_mempolicy, 0, 0, 0},
    {"get_mempolicy", SYS_get_mempolicy, 0, 0, 0, 0, 0},
    {"ioprio_set", SYS_ioprio_set, 1, 0, 0},
#ifdef __x86_64__
    {"iopl", SYS_iopl, 0},
    {"ioperm", SYS_ioperm, 0, 0, 0},
    {"modify_ldt", SYS_modify_ldt, 0, 0, 0},
    {"ustat", SYS_ustat, 0, -1},
    {"sysfs", SYS_sysfs, 3, 0, 0},
#endif
};

// Whether the kernel's own code judged the call, rather than the filter or a lack of privilege.
static int reached(long result) {
    return result >= 0 || (errno != EPERM && errno != ENOSYS && errno != EACCES) ? WON : STOPPED;
}

static int by_sign(long result) { return result >= 0 ? WON : STOPPED; }

static int reach(const char *name) {
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        const struct call *call = &CALLS[i];
        if (strcmp(call->name, name) == 0)
            return reached(syscall(call->number, call->a, call->b, call->c, call->d, call->e, 0));
    }
    return 2;
}

static int entry_of_32_bit_programs(void) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory"); // getpid
    return result > 0 ? WON : STOPPED;
#else
    return STOPPED;
#endif
}

static int entry_of_x32_programs(void) { return by_sign(syscall(0x40000000 + SYS_getpid)); }

static int child_ends(long pid) {
    if (pid == 0) _exit(0);
    return pid > 0 && waitpid((pid_t)pid, 0, __WALL) == pid ? WON : STOPPED;
}

static int clone_with(unsigned long flags) {
    return child_ends(syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0));
}

static int clone3_with(unsigned long flags) {
    struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
    return child_ends(syscall(SYS_clone3, &args, sizeof args));
}

// A socket, or an answer that only the kernel's networking gives.
static int socket_of(int family, int type, int protocol) {
    if (socket(family, type, protocol) >= 0) return WON;
    return errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT ? WON : STOPPED;
}

static int own_terminal(int *other) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master)) return -1;
    setsid();
    int slave = open(ptsname(master), O_RDWR);
    ioctl(slave, TIOCSCTTY, 0);
    if (other) *other = master;
    return slave;
}

// Straight to the kernel: libc would cut a request to 32 bits where a caller of the kernel need not.
static int terminal_request(unsigned long request) {
    int master, discipline = 0;
    int slave = own_terminal(&master);
    if (slave < 0) return 2;
    char letter = 'x';
    void *argument = (request & 0xffffffff) == TIOCSTI ? (void *)&letter : (void *)&discipline;
    return by_sign(syscall(SYS_ioctl, slave, request, argument));
}

static int has_set_id(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0 && (facts.st_mode & 06000) ? WON : STOPPED;
}

// Leaves a set-user-id or set-group-id program for whoever finds it.
static int set_id_file(const char *how, const char *path) {
    const mode_t mode = 04755;
    if (strcmp(how, "open") == 0) close(syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY, mode));
    else if (strcmp(how, "open-group") == 0) close(syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY, 02755));
    else if (strcmp(how, "tmpfile") == 0) {
        char name[64];
        int fd = syscall(SYS_openat, AT_FDCWD, ".", O_TMPFILE | O_RDWR, mode);
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        linkat(AT_FDCWD, name, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
    }
#ifdef SYS_creat
    else if (strcmp(how, "creat") == 0) close(syscall(SYS_creat, path, mode));
    else if (strcmp(how, "mknod") == 0) syscall(SYS_mknod, path, S_IFREG | mode, 0);
    else if (strcmp(how, "chmod") == 0) {
        close(open(path, O_CREAT | O_WRONLY, 0755));
        syscall(SYS_chmod, path, mode);
    }
#endif
    else if (strcmp(how, "mknodat") == 0) syscall(SYS_mknodat, AT_FDCWD, path, S_IFREG | mode, 0);
    else if (strcmp(how, "openat2") == 0) {
        struct open_how open_how = {.flags = O_CREAT | O_WRONLY, .mode = mode};
        close(syscall(SYS_openat2, AT_FDCWD, path, &open_how, sizeof open_how));
    } else {
        int fd = open(path, O_CREAT | O_WRONLY, 0755);
        if (strcmp(how, "fchmod") == 0) fchmod(fd, mode);
        if (strcmp(how, "fchmodat") == 0) syscall(SYS_fchmodat, AT_FDCWD, path, mode);
        if (strcmp(how, "fchmodat2") == 0) syscall(NR_FCHMODAT2, AT_FDCWD, path, mode, 0);
        if (strcmp(how, "high-bits") == 0) syscall(SYS_fchmodat, AT_FDCWD, path, 0x100000000L | mode);
        if (strcmp(how, "group") == 0) syscall(SYS_fchmodat, AT_FDCWD, path, 02755);
    }
    return has_set_id(path);
}

static int file_capability(const char *path) {
    // Version 2, effective: CAP_SYS_ADMIN.
    const uint32_t caps[5] = {0x02000001, 1 << 21, 0, 0, 0};
    close(open(path, O_CREAT | O_WRONLY, 0755));
    return by_sign(setxattr(path, "security.capability", caps, sizeof caps, 0));
}

static int device_node(int kind, const char *path) {
    return by_sign(syscall(SYS_mknodat, AT_FDCWD, path, kind | 0666, (1 << 8) | 3));
}

// What a rename leaves in the place of a file is a device.
static int whiteout(const char *path) {
    close(open(path, O_CREAT | O_WRONLY, 0644));
    return by_sign(syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, "moved", 4));
}

static int lease(const char *path) {
    int fd = open(path, O_CREAT | O_RDWR, 0644);
    return by_sign(fcntl(fd, F_SETLEASE, F_WRLCK));
}

static int immutable(const char *path) {
    int flags = 0x10, fd = open(path, O_CREAT | O_RDWR, 0644); // FS_IMMUTABLE_FL
    int result = ioctl(fd, _IOW('f', 2, long), &flags);
    int none = 0;
    if (result == 0) ioctl(fd, _IOW('f', 2, long), &none);
    return by_sign(result);
}

static int chroot_escape(const char *wanted) {
    mkdir("jail", 0755);
    if (chroot("jail")) return STOPPED;
    for (int i = 0; i < 64; i++)
        if (chdir("..")) return STOPPED;
    return by_sign(open(wanted[0] == '/' ? wanted + 1 : wanted, O_RDONLY));
}

static int connect_to(const char *name, int abstract) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + abstract, name, sizeof address.sun_path - 2);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name);
    return by_sign(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, length));
}

static int tcp(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return by_sign(connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address));
}

static int pidfd(pid_t pid) { return syscall(SYS_pidfd_open, pid, 0); }

static int look_into(const char *how, pid_t pid) {
    if (strcmp(how, "attach") == 0) return by_sign(ptrace(PTRACE_ATTACH, pid, 0, 0));
    if (strcmp(how, "seize") == 0) return by_sign(ptrace(PTRACE_SEIZE, pid, 0, 0));
    if (strcmp(how, "descriptor") == 0) return by_sign(syscall(SYS_pidfd_getfd, pidfd(pid), 0, 0));
    if (strcmp(how, "compare") == 0) return by_sign(syscall(SYS_kcmp, getpid(), pid, 0, 0, 0));
    struct rlimit tight = {64, 64};
    struct sched_param last = {0};
    if (strcmp(how, "limit") == 0) return by_sign(prlimit(pid, RLIMIT_NOFILE, &tight, 0));
    if (strcmp(how, "turn") == 0) return by_sign(sched_setscheduler(pid, SCHED_IDLE, &last));
    if (strcmp(how, "nice") == 0) return by_sign(setpriority(PRIO_PROCESS, pid, 19));
    char byte;
    // Where the kernel looks only after it has judged who asks.
    struct iovec here = {&byte, 1}, there = {(void *)0x1000, 1};
    return reached(syscall(SYS_process_vm_readv, pid, &here, 1, &there, 1, 0));
}

static int enter_namespace(const char *path) { return by_sign(setns(open(path, O_RDONLY), 0)); }

// Counts how often something works, up to a number; wins if that many do.
static int many(const char *what, long wanted) {
    long done = 0;
    setpgid(0, 0); // What is killed below is this program's own.
    for (; done < wanted; done++) {
        int result = -1;
        if (strcmp(what, "processes") == 0) {
            result = fork();
            if (result == 0) pause();
        } else if (strcmp(what, "files") == 0) result = open("/dev/null", O_RDONLY);
        else if (strcmp(what, "terminals") == 0) result = posix_openpt(O_RDWR | O_NOCTTY);
        else if (strcmp(what, "watchers") == 0) result = inotify_init1(0);
        else if (strcmp(what, "inodes") == 0) {
            char name[32];
            snprintf(name, sizeof name, "i%ld", done);
            result = open(name, O_CREAT | O_WRONLY, 0600);
            close(result);
        }
        if (result < 0) break;
    }
    fprintf(stderr, "%ld %s\n", done, what);
    if (strcmp(what, "processes") == 0) {
        signal(SIGTERM, SIG_IGN);
        kill(0, SIGTERM);
        while (wait(0) > 0) {}
    }
    return done >= wanted ? WON : STOPPED;
}

// Memory that is there, not only promised, in one process or in segments of shared memory.
static int memory(const char *how, long mib) {
    for (long i = 0; i < mib; i++) {
        const size_t size = 1 << 20;
        char *piece = MAP_FAILED;
        if (strcmp(how, "shared") == 0) {
            int id = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
            if (id >= 0) piece = shmat(id, 0, 0);
            if (id >= 0) shmctl(id, IPC_RMID, 0);
        } else {
            piece = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        }
        if (piece == MAP_FAILED || piece == (char *)-1) return STOPPED;
        memset(piece, 1, size);
    }
    return WON;
}

// Memory that the kernel charges to no process, or to one that lets nobody look.
static int unseen_memory(const char *how, long mib) {
    const size_t size = 1 << 20;
    static char piece[1 << 20];
    memset(piece, 1, size);
    if (strcmp(how, "nameless") == 0) {
        int fd = memfd_create("n", 0);
        for (long i = 0; i < mib; i++)
            if (write(fd, piece, size) != (ssize_t)size) return STOPPED;
    } else if (strcmp(how, "forgotten") == 0) {
        char *all = mmap(0, mib * size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        for (long i = 0; i < mib; i++) {
            memset(all + i * size, 1, size);
            madvise(all + i * size, size, MADV_DONTNEED);
        }
    } else if (strcmp(how, "sockets") == 0) {
        for (long sent = 0; sent < mib * (long)size;) {
            int pair[2];
            if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair)) return STOPPED;
            for (int end = 0; end < 2; end++)
                for (ssize_t n; (n = send(pair[end], piece, 65536, 0)) > 0;) sent += n;
        }
    } else {
        // More than one may have, in several that others of their user cannot look into.
        for (int i = 0; i < 8; i++) {
            if (fork() == 0) {
                prctl(PR_SET_DUMPABLE, 0);
                char *own = malloc(mib / 8 * size);
                if (!own) return STOPPED;
                memset(own, 1, mib / 8 * size);
                sleep(2);
                return WON;
            }
        }
        for (int status; wait(&status) > 0;)
            if (!WIFEXITED(status) || WEXITSTATUS(status) != WON) return STOPPED;
        return WON;
    }
    sleep(2);
    return WON;
}

static int gain(const char *what) {
    struct rlimit limit = {1 << 20, 1 << 20};
    struct sched_param realtime = {.sched_priority = 1};
    gid_t root = 0;
    if (strcmp(what, "root") == 0) return by_sign(setresuid(0, 0, 0));
    if (strcmp(what, "groups") == 0) return by_sign(setgroups(1, &root));
    if (strcmp(what, "files") == 0) return by_sign(setrlimit(RLIMIT_NOFILE, &limit));
    if (strcmp(what, "priority") == 0) return by_sign(setpriority(PRIO_PROCESS, 0, -5));
    if (strcmp(what, "realtime") == 0) return by_sign(sched_setscheduler(0, SCHED_FIFO, &realtime));
    if (strcmp(what, "locked") == 0) return by_sign(mlock(calloc(32, 1 << 20), 32 << 20));
    if (strcmp(what, "page-zero") == 0) {
        int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        return mmap(0, 4096, PROT_READ, how, -1, 0) == MAP_FAILED ? STOPPED : WON;
    }
    if (strcmp(what, "capability") == 0) return by_sign(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0));
    if (strcmp(what, "bounding") == 0) return prctl(PR_CAPBSET_READ, 21) == 1 ? WON : STOPPED;
    return 2;
}

// Shared things of System V and of POSIX: leaves one, or looks for one.
static int shared(const char *what, const char *name) {
    key_t key = strtol(name, 0, 10);
    int leave = strncmp(what, "leave-", 6) == 0;
    if (leave) what += 6;
    if (strcmp(what, "memory") == 0) return by_sign(shmget(key, 4096, leave ? IPC_CREAT | 0666 : 0666));
    if (strcmp(what, "messages") == 0) return by_sign(msgget(key, leave ? IPC_CREAT | 0666 : 0666));
    char queue[64];
    snprintf(queue, sizeof queue, "/casemate-%s", name);
    if (strcmp(what, "queue") == 0) return by_sign(mq_open(queue, leave ? O_CREAT | O_RDWR : O_RDWR, 0666, 0));
    if (strcmp(what, "remove") == 0) {
        shmctl(shmget(key, 0, 0), IPC_RMID, 0);
        msgctl(msgget(key, 0), IPC_RMID, 0);
        mq_unlink(queue);
        return WON;
    }
    return 2;
}

// Listens on an abstract socket until it is killed.
static int listen_on(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 8)) return STOPPED;
    puts("listening");
    fflush(stdout);
    pause();
    return WON;
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    const char *one = count > 2 ? words[2] : "", *two = count > 3 ? words[3] : "";
    if (strcmp(what, "reach") == 0) return reach(one);
    if (strcmp(what, "int80") == 0) return entry_of_32_bit_programs();
    if (strcmp(what, "x32") == 0) return entry_of_x32_programs();
    if (strcmp(what, "clone") == 0) return clone_with(strtoul(one, 0, 0));
    if (strcmp(what, "clone3") == 0) return clone3_with(strtoul(one, 0, 0));
    if (strcmp(what, "unshare") == 0) return by_sign(syscall(SYS_unshare, strtoul(one, 0, 0)));
    if (strcmp(what, "socket") == 0)
        return socket_of(atoi(one), atoi(two), count > 4 ? atoi(words[4]) : 0);
    if (strcmp(what, "terminal") == 0) return terminal_request(strtoul(one, 0, 0));
    if (strcmp(what, "set-id") == 0) return set_id_file(one, two);
    if (strcmp(what, "file-capability") == 0) return file_capability(one);
    if (strcmp(what, "char-device") == 0) return device_node(S_IFCHR, one);
    if (strcmp(what, "block-device") == 0) return device_node(S_IFBLK, one);
    if (strcmp(what, "lease") == 0) return lease(one);
    if (strcmp(what, "immutable") == 0) return immutable(one);
    if (strcmp(what, "chroot-escape") == 0) return chroot_escape(one);
    if (strcmp(what, "unix") == 0) return connect_to(one, 0);
    if (strcmp(what, "abstract") == 0) return connect_to(one, 1);
    if (strcmp(what, "tcp") == 0) return tcp(atoi(one));
    if (strcmp(what, "look") == 0) return look_into(one, atoi(two));
    if (strcmp(what, "pidfd") == 0) return by_sign(pidfd(atoi(one)));
    if (strcmp(what, "enter") == 0) return enter_namespace(one);
    if (strcmp(what, "many") == 0) return many(one, atol(two));
    if (strcmp(what, "memory") == 0) return memory(one, atol(two));
    if (strcmp(what, "unseen") == 0) return unseen_memory(one, atol(two));
    if (strcmp(what, "whiteout") == 0) return whiteout(one);
    if (strcmp(what, "gain") == 0) return gain(one);
    if (strcmp(what, "shared") == 0) return shared(one, two);
    if (strcmp(what, "listen") == 0) return listen_on(one);
    fprintf(stderr, "no attack is called %s\n", what);
    return 2;
}
