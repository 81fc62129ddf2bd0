/* The least that makes a sandbox like casemate's: a small process that stays, and for each byte on its standard input
 * makes one sandbox, runs `true` in it, and answers with a byte when that has ended. No plan, no self-test, no limits, no
 * protected paths, no devices but three, nothing that could go wrong: errors end it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(call) do { if ((call) < 0) { perror(#call); _exit(1); } } while (0)

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    MUST(fd);
    MUST(write(fd, text, strlen(text)));
    MUST(close(fd));
}

static void bind_to(const char *from, const char *to, unsigned long more) {
    MUST(mount(from, to, NULL, MS_BIND | MS_REC, NULL));
    MUST(mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | MS_NOSUID | more, NULL));
}

static void landlock(void) {
    static const char *const shown[] = {"/", "/usr", "/etc", "/dev", "/proc", "/tmp", "/work", "/home", "/run", "/var"};
    struct landlock_ruleset_attr attr = {.handled_access_fs = (1ULL << 13) - 1};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    MUST(ruleset);
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        int fd = open(shown[i], O_PATH | O_CLOEXEC);
        MUST(fd);
        struct landlock_path_beneath_attr rule = {.allowed_access = (1ULL << 13) - 1, .parent_fd = fd};
        MUST(syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
        MUST(close(fd));
    }
    MUST(syscall(SYS_landlock_restrict_self, ruleset, 0));
    MUST(close(ruleset));
}

/* 130 instructions: as many comparisons of the number with calls that there are not, then yes. */
static void filter(void) {
    struct sock_filter code[130];
    code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
    for (unsigned short i = 1; i < 128; i++)
        code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 100000u + i, (unsigned char)(128 - i), 0);
    code[128] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[129] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1);
    struct sock_fprog program = {130, code};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
}

static void inside(const char *workspace, int mapped) {
    static const char *const dirs[] = {"usr", "etc", "dev", "proc", "tmp", "work", "home", "run", "var"};
    static const char *const devices[] = {"null", "zero", "urandom"};
    static const char *const links[] = {"bin", "sbin", "lib", "lib64"};
    char byte, path[64], to[64];
    MUST(read(mapped, &byte, 1));
    MUST(close(mapped));
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mount("floor", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755"));
    MUST(chdir("/tmp"));
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) MUST(mkdir(dirs[i], 0755));
    bind_to(workspace, "work", MS_NODEV);
    bind_to("/usr", "usr", MS_RDONLY);
    bind_to("/etc", "etc", MS_RDONLY);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(to, sizeof to, "usr/%s", links[i]);
        MUST(symlink(to, links[i]));
    }
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        snprintf(path, sizeof path, "/dev/%s", devices[i]);
        MUST(close(open(path + 1, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)));
        MUST(mount(path, path + 1, NULL, MS_BIND, NULL));
    }
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
    MUST(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL));
    landlock();
    filter();
    char *argv[] = {"true", NULL}, *env[] = {NULL};
    execve("/usr/bin/true", argv, env);
    _exit(1);
}

static void make_one(const char *workspace) {
    static const char *const files[] = {"setgroups", "uid_map", "gid_map"};
    char path[64], text[3][64];
    int pipes[2];
    MUST(pipe2(pipes, O_CLOEXEC));
    unsigned long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
    long child = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
    MUST(child);
    if (child == 0) inside(workspace, pipes[0]);
    snprintf(text[0], sizeof text[0], "deny");
    snprintf(text[1], sizeof text[1], "1000 %u 1", geteuid());
    snprintf(text[2], sizeof text[2], "1000 %u 1", getegid());
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/proc/%ld/%s", child, files[i]);
        put(path, text[i]);
    }
    MUST(write(pipes[1], "", 1));
    MUST(close(pipes[0]));
    MUST(close(pipes[1]));
    int status;
    MUST(waitpid((pid_t)child, &status, 0));
    if (status != 0) _exit(1);
}

int main(int argc, char **argv) {
    char byte;
    if (argc != 2) return 1;
    while (read(0, &byte, 1) == 1) {
        make_one(argv[1]);
        MUST(write(1, &byte, 1));
    }
    return 0;
}
