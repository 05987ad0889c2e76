/* Runs what opencode starts, inside the walls of the session that it is started for.
 *
 *   confine RULES COMMAND...   enter the domain of RULES for good and become COMMAND (opencode itself);
 *                              without a command nothing but the proof that the kernel lets us
 *   bash -c TEXT, git, rg      under any other name: have that program run by the session's keeper
 *   session-keeper             the keeper: one per session, started by the first command that needs it
 *
 * opencode serves all sessions from one process. It starts a shell for the agent's bash tool, and git and
 * ripgrep for itself in directories whose configuration belongs to an agent. All of them find this program
 * in place of the real one (`$SHELL`, and a directory at the head of `$PATH`). It passes its arguments,
 * environment, working directory and standard streams to the keeper of the session and waits for the status.
 *
 *   opencode --fork--> client ==socket==> keeper (subreaper) --> server (domain of the session)
 *                                                                   +--> handler --> the command
 *
 * One keeper per session, rather than a domain per command: a domain may only signal its own processes, so
 * that a later command could not end a server that an earlier one left running. The keeper itself stays outside
 * the session's domain: a session cannot kill it, whatever is orphaned below it is adopted by it, and
 * ending the keeper ends the session's processes, however they were started.
 *
 * Nothing here needs a privilege but no_new_privs. Rules are lines of `keyword value`, see `load`.
 * Linux only; needs Landlock. Exit status 126 and a sentence on stderr when a command cannot be run.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* From the kernel's ABI, for compilers with older headers (include/uapi/linux/landlock.h). */
#define SYS_CREATE_RULESET 444
#define SYS_ADD_RULE 445
#define SYS_RESTRICT_SELF 446
#define RULE_PATH_BENEATH 1
#define CREATE_RULESET_VERSION 1u
#define FS_EXECUTE (1ull << 0)
#define FS_WRITE_FILE (1ull << 1)
#define FS_READ_FILE (1ull << 2)
#define FS_READ_DIR (1ull << 3)
#define FS_TRUNCATE (1ull << 14)
#define FS_IOCTL_DEV (1ull << 15)
#define FS_OF_FILES (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define FS_ABI_1 ((1ull << 13) - 1)
#define FS_REFER (1ull << 13)
#define SCOPE_ABSTRACT_SOCKETS (1ull << 0)
#define SCOPE_SIGNALS (1ull << 1)
struct ruleset { uint64_t fs, net, scoped; };
struct path_rule { uint64_t access; int32_t parent; } __attribute__((packed));

/* Likewise (include/uapi/linux/{seccomp,filter,audit}.h); `OTHER_` are the numbers of 32-bit programs. */
#define SECCOMP_FILTER 2
#define FILTER_LOAD(offset) {0x20, 0, 0, offset}
#define FILTER_EQUALS(value, yes, no) {0x15, yes, no, value}
#define FILTER_AT_LEAST(value, yes, no) {0x35, yes, no, value}
#define FILTER_ALLOW {0x06, 0, 0, 0x7fff0000u}
#define FILTER_REFUSE {0x06, 0, 0, 0x00050000u | EPERM}
#define X32_CALLS 0x40000000u
#if defined(__x86_64__)
#define ARCHITECTURE 0xc000003eu
#define OTHER_ARCHITECTURE 0x40000003u
enum other_calls { OTHER_add_key = 286, OTHER_request_key, OTHER_keyctl, OTHER_prlimit64 = 340 };
#elif defined(__aarch64__)
#define ARCHITECTURE 0xc00000b7u
#define OTHER_ARCHITECTURE 0x40000028u
enum other_calls { OTHER_add_key = 309, OTHER_request_key, OTHER_keyctl, OTHER_prlimit64 = 369 };
#endif
struct filter { uint16_t code; uint8_t yes, no; uint32_t value; };
struct filters { uint16_t count; const struct filter *list; };

#define MAX_REQUEST (8u << 20) /* the kernel's own bound on arguments and environment is 6 MiB */
#define MAX_RULES 4096
#define IDLE_MS 60000
#define WATCH_MS 250
#define DRAIN_MS 2000
#define CANNOT_RUN 126

struct rule { const char *keyword, *value; };
static struct rule rules[MAX_RULES];
static int rule_count;
static const char *program = "confine";

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    int error = errno;
    va_list list;
    va_start(list, format);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, list);
    fprintf(stderr, error ? ": %s\n" : "\n", strerror(error));
    _exit(CANNOT_RUN);
}

/* Keywords of both files: read PATH, device PATH, write PATH (grants); limit NAME NUMBER; shims DIR; tmp DIR
 * and home DIR (opencode's own, replaced for a session). Of opencode's: launcher PATH (its shell),
 * session_rules PATH. Of the sessions': workspaces, private, keepers DIR; shell PATH (the first that is there
 * counts); unset NAME; processes NUMBER. */
static void load(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0) die("cannot read the rules %s", path);
    char *text = malloc((size_t)status.st_size + 1);
    if (!text || read(fd, text, (size_t)status.st_size) != status.st_size) die("cannot read the rules %s", path);
    text[status.st_size] = 0;
    close(fd);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *space = strchr(line, ' ');
        if (!space) continue;
        if (rule_count == MAX_RULES) die("more than %d rules", MAX_RULES);
        *space = 0;
        rules[rule_count++] = (struct rule){line, space + 1};
    }
}

static const char *rule(const char *keyword)
{
    for (int i = 0; i < rule_count; i++)
        if (!strcmp(rules[i].keyword, keyword) && (strcmp(keyword, "shell") || !access(rules[i].value, X_OK)))
            return rules[i].value;
    errno = 0;
    die("the rules have no `%s`", keyword);
}

/* ---- The domain ------------------------------------------------------------------------------------ */

static uint64_t file_rights(int abi)
{
    uint64_t rights = FS_ABI_1;
    if (abi >= 2) rights |= FS_REFER;
    if (abi >= 3) rights |= FS_TRUNCATE;
    if (abi >= 5) rights |= FS_IOCTL_DEV;
    return rights;
}

static void grant(int ruleset, const char *path, uint64_t rights)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    struct stat status;
    if (fd < 0) return; /* a path that is not there needs no grant */
    if (fstat(fd, &status) < 0) die("cannot look at %s", path);
    if (!S_ISDIR(status.st_mode)) rights &= FS_OF_FILES;
    struct path_rule beneath = {rights, fd};
    if (syscall(SYS_ADD_RULE, ruleset, RULE_PATH_BENEATH, &beneath, 0)) die("cannot allow %s", path);
    close(fd);
}

/* Enter a domain with the rules' grants and, with all rights, the `extra` directories (NULL-terminated). */
static void confine(const char *const *extra)
{
    int abi = (int)syscall(SYS_CREATE_RULESET, NULL, 0, CREATE_RULESET_VERSION);
    if (abi < 1) die("this kernel has no Landlock");
    uint64_t all = file_rights(abi);
    struct ruleset attributes = {all, 0, 0};
    size_t size = sizeof(uint64_t); /* older kernels refuse fields that they do not know */
    if (abi >= 6) {
        attributes.scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS;
        size = sizeof attributes;
    }
    int ruleset = (int)syscall(SYS_CREATE_RULESET, &attributes, size, 0);
    if (ruleset < 0) die("cannot make a Landlock ruleset");
    uint64_t reads = FS_EXECUTE | FS_READ_FILE | FS_READ_DIR;
    uint64_t devices = (FS_READ_FILE | FS_WRITE_FILE | FS_READ_DIR | FS_IOCTL_DEV | FS_TRUNCATE) & all;
    for (int i = 0; i < rule_count; i++) {
        const char *keyword = rules[i].keyword;
        if (!strcmp(keyword, "read")) grant(ruleset, rules[i].value, reads);
        else if (!strcmp(keyword, "device")) grant(ruleset, rules[i].value, devices);
        else if (!strcmp(keyword, "write")) grant(ruleset, rules[i].value, all);
    }
    for (; extra && *extra; extra++) grant(ruleset, *extra, all);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("cannot give up privileges");
    if (syscall(SYS_RESTRICT_SELF, ruleset, 0)) die("cannot enter the Landlock domain");
    close(ruleset);
}

/* Refuse what Landlock does not know and what reaches past the session: the kernel's keyrings, which belong to
 * the user (container runtimes refuse them as well), and setting limits of other processes: one of CPU time
 * kills. Jumps count from the next line; a call's number is at 0, its architecture at 4, arguments of 8 bytes
 * from 16. */
static void refuse_calls(void)
{
#ifdef ARCHITECTURE
    static const struct filter list[] = {
        /*  0 */ FILTER_LOAD(4),
        /*  1 */ FILTER_EQUALS(ARCHITECTURE, 2, 0),
        /*  2 */ FILTER_EQUALS(OTHER_ARCHITECTURE, 7, 0),
        /*  3 */ FILTER_REFUSE,
        /*  4 */ FILTER_LOAD(0),
        /*  5 */ FILTER_AT_LEAST(X32_CALLS, 16, 0),
        /*  6 */ FILTER_EQUALS(SYS_add_key, 15, 0),
        /*  7 */ FILTER_EQUALS(SYS_request_key, 14, 0),
        /*  8 */ FILTER_EQUALS(SYS_keyctl, 13, 0),
        /*  9 */ FILTER_EQUALS(SYS_prlimit64, 5, 11),
        /* 10 */ FILTER_LOAD(0),
        /* 11 */ FILTER_EQUALS(OTHER_add_key, 10, 0),
        /* 12 */ FILTER_EQUALS(OTHER_request_key, 9, 0),
        /* 13 */ FILTER_EQUALS(OTHER_keyctl, 8, 0),
        /* 14 */ FILTER_EQUALS(OTHER_prlimit64, 0, 6),
        /* 15: the caller's own limits, */ FILTER_LOAD(16),
        /* 16 */ FILTER_EQUALS(0, 4, 0),
        /* 17: or none to be set (a pointer has two halves) */ FILTER_LOAD(32),
        /* 18 */ FILTER_EQUALS(0, 0, 3),
        /* 19 */ FILTER_LOAD(36),
        /* 20 */ FILTER_EQUALS(0, 0, 1),
        /* 21 */ FILTER_ALLOW,
        /* 22 */ FILTER_REFUSE,
    };
    const struct filters filters = {sizeof list / sizeof *list, list};
    if (prctl(PR_SET_SECCOMP, SECCOMP_FILTER, &filters, 0, 0)) die("cannot refuse system calls");
#endif
}

/* As root, everything that goes around files and processes: kernel modules, bpf, raw disks, other users. */
static void drop_capabilities(void)
{
    struct { uint32_t version; int pid; } header = {0x20080522, 0};
    struct { uint32_t effective, permitted, inheritable; } data[2] = {{0}};
    uint32_t kept = 1u << 0 | 1u << 3 | 1u << 4; /* chown, fowner, fsetid: archives with owners */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (unsigned long capability = 0; capability < 64; capability++)
        if (capability >= 32 || !(kept & 1u << capability)) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (syscall(SYS_capget, &header, data)) die("cannot read capabilities");
    for (int i = 0; i < 2; i++) {
        data[i].effective &= i ? 0 : kept;
        data[i].permitted &= i ? 0 : kept;
        data[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &header, data)) die("cannot drop capabilities");
}

static void limit(void)
{
    static const struct { const char *name; int resource; } names[] = {
        {"core", RLIMIT_CORE}, {"file_bytes", RLIMIT_FSIZE}, {"open_files", RLIMIT_NOFILE},
        {"user_processes", RLIMIT_NPROC}};
    for (int i = 0; i < rule_count; i++) {
        if (strcmp(rules[i].keyword, "limit")) continue;
        for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
            size_t length = strlen(names[n].name);
            if (strncmp(rules[i].value, names[n].name, length) || rules[i].value[length] != ' ') continue;
            struct rlimit bound;
            rlim_t wanted = strtoull(rules[i].value + length, NULL, 10);
            if (getrlimit(names[n].resource, &bound)) continue;
            if (wanted < bound.rlim_max) bound.rlim_max = wanted;
            bound.rlim_cur = bound.rlim_max;
            if (setrlimit(names[n].resource, &bound)) die("cannot set the limit %s", names[n].name);
        }
    }
}

/* ---- Processes by descent --------------------------------------------------------------------------- */

/* Return the parent of a live process, -1 for any other. Its name in /proc/<pid>/stat may hold anything, so
 * the fields begin after the last bracket. */
static int parent_of(int pid)
{
    char path[32], text[512], state;
    int parent;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return -1;
    text[length] = 0;
    char *end = strrchr(text, ')');
    if (!end || sscanf(end + 1, " %c %d", &state, &parent) != 2 || state == 'Z') return -1;
    return parent;
}

static int table[65536], parents[65536];

/* Fill `table` with the live processes below this one; return how many. */
static int descendants(void)
{
    int count = 0, found = 0, self = getpid();
    DIR *proc = opendir("/proc");
    if (!proc) return 0;
    for (struct dirent *entry; (entry = readdir(proc)) && count < 65536;) {
        int pid = atoi(entry->d_name);
        if (pid > 0 && (parents[count] = parent_of(pid)) >= 0) table[count++] = pid;
    }
    closedir(proc);
    /* Move what is below us to the front, one generation after the other. */
    for (int next = -1; next < found; next++) {
        int parent = next < 0 ? self : table[next];
        for (int i = found; i < count; i++) {
            if (parents[i] != parent) continue;
            int pid = table[i];
            table[i] = table[found], parents[i] = parents[found];
            table[found] = pid, parents[found++] = parent;
        }
    }
    return found;
}

/* Count the processes below `pid`, up to `bound`: the cheap way, which costs nothing for other people's
 * processes but may miss one that is just forked. */
static int count_below(int pid, int bound)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) return 0;
    for (struct dirent *task; count <= bound && (task = readdir(tasks));) {
        if (*task->d_name == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.16s/children", pid, task->d_name);
        FILE *children = fopen(path, "re");
        if (!children) continue;
        for (int child; count <= bound && fscanf(children, "%d", &child) == 1;)
            count += 1 + count_below(child, bound - count - 1);
        fclose(children);
    }
    closedir(tasks);
    return count;
}

static void reap(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
}

/* Killing races with forking, so it is repeated until nothing is left. */
static void end_descendants(void)
{
    for (int round = 0, count; round < 500 && (count = descendants()) > 0; round++) {
        for (int i = 0; i < count; i++) kill(table[i], SIGKILL);
        reap();
        usleep(2000);
    }
    reap();
}

/* ---- Messages ---------------------------------------------------------------------------------------- */

static int write_all(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t written = write(fd, data, length);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return -1;
        data += written, length -= (size_t)written;
    }
    return 0;
}

static int read_all(int fd, char *data, size_t length)
{
    while (length) {
        ssize_t got = read(fd, data, length);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return -1;
        data += got, length -= (size_t)got;
    }
    return 0;
}

struct header { uint32_t bytes, arguments, variables; };

static int send_request(int fd, char **arguments, char **variables)
{
    char directory[PATH_MAX], control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct header header = {0, 0, 0};
    if (!getcwd(directory, sizeof directory)) die("no working directory");
    header.bytes = (uint32_t)strlen(directory) + 1;
    for (char **a = arguments; *a; a++) header.arguments++, header.bytes += (uint32_t)strlen(*a) + 1;
    for (char **v = variables; *v; v++) header.variables++, header.bytes += (uint32_t)strlen(*v) + 1;
    char *text = malloc(header.bytes), *end = text;
    if (!text) die("no memory");
    end = stpcpy(end, directory) + 1;
    for (char **a = arguments; *a; a++) end = stpcpy(end, *a) + 1;
    for (char **v = variables; *v; v++) end = stpcpy(end, *v) + 1;
    struct iovec part = {&header, sizeof header};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    *rights = (struct cmsghdr){.cmsg_len = CMSG_LEN(3 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(rights), (int[]){0, 1, 2}, 3 * sizeof(int));
    int is_sent = sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof header && !write_all(fd, text, header.bytes);
    free(text);
    return is_sent ? 0 : -1;
}

/* Receive a request: streams 0 to 2 are replaced, the working directory entered. NULL ends both lists. */
static void receive_request(int fd, char ***arguments, char ***variables)
{
    char control[CMSG_SPACE(3 * sizeof(int))];
    struct header header;
    struct iovec part = {&header, sizeof header};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(fd, &message, MSG_WAITALL) != (ssize_t)sizeof header || header.bytes > MAX_REQUEST) _exit(CANNOT_RUN);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (!rights || rights->cmsg_len != CMSG_LEN(3 * sizeof(int))) _exit(CANNOT_RUN);
    int streams[3];
    memcpy(streams, CMSG_DATA(rights), sizeof streams);
    for (int i = 0; i < 3; i++)
        if (dup2(streams[i], i) < 0) _exit(CANNOT_RUN);
    for (int i = 0; i < 3; i++) close(streams[i]);
    char *text = malloc(header.bytes + 1);
    *arguments = calloc(header.arguments + 1, sizeof(char *));
    *variables = calloc(header.variables + 1, sizeof(char *));
    if (!text || !*arguments || !*variables || read_all(fd, text, header.bytes)) _exit(CANNOT_RUN);
    text[header.bytes] = 0;
    char *next = text, *end = text + header.bytes;
    const char *directory = next;
    next += strlen(next) + 1;
    for (uint32_t i = 0; i < header.arguments && next < end; i++) (*arguments)[i] = next, next += strlen(next) + 1;
    for (uint32_t i = 0; i < header.variables && next < end; i++) (*variables)[i] = next, next += strlen(next) + 1;
    if (chdir(directory)) die("cannot enter %s", directory);
}

/* ---- The keeper --------------------------------------------------------------------------------------- */

/* Run one command for one connection: its status is the last thing written, a byte read is a signal for it. */
__attribute__((noreturn)) static void handle(int connection)
{
    char **arguments, **variables;
    receive_request(connection, &arguments, &variables);
    if (write_all(connection, "", 1)) _exit(CANNOT_RUN); /* from here on the client does not ask again */
    pid_t pid = fork();
    if (pid < 0) die("cannot start a process");
    if (pid == 0) {
        setsid();
        signal(SIGPIPE, SIG_DFL);
        execve(arguments[0], arguments + 1, variables);
        die("cannot run %s", arguments[0]);
    }
    for (int i = 0; i < 3; i++) close(i); /* whoever reads our output waits for the command alone */
    int watch = (int)syscall(SYS_pidfd_open, pid, 0), status = 0;
    for (;;) {
        struct pollfd both[2] = {{watch, POLLIN, 0}, {connection, POLLIN, 0}};
        if (poll(both, 2, -1) < 0 && errno != EINTR) break;
        if (both[0].revents) break;
        if (both[1].revents) {
            char number;
            ssize_t got = read(connection, &number, 1);
            kill(-pid, got == 1 ? number : SIGKILL);
            if (got != 1) break;
        }
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    int32_t answer = status;
    write_all(connection, (char *)&answer, sizeof answer);
    _exit(0);
}

/* Accept commands inside the session's domain. Only a child of opencode is served: shells may reach the
 * sockets of all sessions, for Landlock does not know sockets that have a path. */
__attribute__((noreturn)) static void serve(int listener, int news, int opencode, const char *const *own)
{
    confine(own);
    refuse_calls();
    limit();
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    signal(SIGCHLD, SIG_IGN); /* handlers reap themselves */
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) {
            if (errno == EINTR || errno == ECONNABORTED || errno == EMFILE || errno == ENFILE) continue;
            _exit(1);
        }
        struct ucred peer;
        socklen_t size = sizeof peer;
        if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) || parent_of(peer.pid) != opencode) {
            close(connection);
            continue;
        }
        (void)!write(news, "", 1);
        pid_t pid = fork();
        if (pid == 0) {
            signal(SIGCHLD, SIG_DFL);
            close(listener);
            handle(connection);
        }
        close(connection);
    }
}

static volatile sig_atomic_t is_asked_to_end;

static void note_end(int number)
{
    (void)number;
    is_asked_to_end = 1;
}

/* argv: session-keeper RULES OPENCODE_PID SOCKET_DIR NAME WORKSPACE PRIVATE; the listener is fd 3.
 * It ends, and with it all below it, at SIGTERM, with opencode, or after a minute without any process. */
__attribute__((noreturn)) static void keep(char **argv)
{
    const int listener = 3;
    load(argv[1]);
    int opencode = atoi(argv[2]), bound = atoi(rule("processes")), news[2];
    int owner = (int)syscall(SYS_pidfd_open, opencode, 0);
    const char *own[] = {argv[5], argv[6], NULL};
    char drain[64], path[PATH_MAX];
    struct sigaction action = {.sa_handler = note_end};
    int has_children_files = !access("/proc/thread-self/children", R_OK);
    if (owner < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) || pipe2(news, O_CLOEXEC | O_NONBLOCK)) _exit(1);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    sigaction(SIGTERM, &action, NULL);
    pid_t server = fork();
    if (server == 0) {
        signal(SIGTERM, SIG_DFL);
        close(owner), close(news[0]);
        serve(listener, news[1], opencode, own);
    }
    close(listener);
    for (int is_active = 1;;) {
        struct pollfd wake[2] = {{news[0], POLLIN, 0}, {owner, POLLIN, 0}};
        int woken = poll(wake, 2, is_active ? WATCH_MS : IDLE_MS);
        int has_news = read(news[0], drain, sizeof drain) > 0;
        int is_over = is_asked_to_end || wake[1].revents;
        for (pid_t gone; (gone = waitpid(-1, NULL, WNOHANG)) > 0;)
            if (gone == server) is_over = 1; /* its session has killed it */
        int count = has_children_files ? count_below(getpid(), bound) : descendants();
        if (count > bound) is_over = 1;
        if (!is_over && woken == 0 && !is_active && count <= 1) {
            snprintf(path, sizeof path, "%s/%s.lock", argv[3], argv[4]);
            int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            if (lock >= 0 && !flock(lock, LOCK_EX)) is_over = read(news[0], drain, 1) <= 0;
            if (!is_over) close(lock);
        }
        if (is_over) {
            snprintf(path, sizeof path, "%s/%s", argv[3], argv[4]);
            unlink(path); /* a client that has connected meanwhile finds no answer and starts another keeper */
            end_descendants();
            _exit(count > bound ? 1 : 0);
        }
        is_active = count > 1 || has_news;
    }
}

static void make_directory(const char *path)
{
    if (mkdir(path, 0700) && errno != EEXIST) die("cannot make %s", path);
}

/* Start the keeper; `listener` listens at its socket. It is nobody's child but the subreaper's above us. */
static void start_keeper(int listener, const char *rules_path, const char *directory, const char *name,
                         const char *workspace, const char *own)
{
    char opencode[16], self[PATH_MAX];
    snprintf(opencode, sizeof opencode, "%d", getppid());
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) die("cannot find myself");
    self[length] = 0;
    pid_t first = fork();
    if (first < 0) die("cannot start the session's keeper");
    if (first == 0) {
        setsid();
        if (fork()) _exit(0);
        int null = open("/dev/null", O_RDWR);
        for (int i = 0; i < 3; i++) dup2(null, i);
        dup2(listener, 3);
        syscall(SYS_close_range, 4u, ~0u, 0u);
        execle(self, "session-keeper", rules_path, opencode, directory, name, workspace, own, NULL, (char *[]){NULL});
        _exit(CANNOT_RUN);
    }
    waitpid(first, NULL, 0);
}

/* ---- The client ---------------------------------------------------------------------------------------- */

static int client_connection = -1;

static void pass_on(int number)
{
    char byte = (char)number;
    (void)!write(client_connection, &byte, 1);
}

/* Connect to the keeper of the session, starting it if there is none. */
static int reach_keeper(const char *rules_path, const char *name, const char *workspace, const char *own)
{
    const char *directory = rule("keepers");
    char path[PATH_MAX + 8];
    int folder = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) die("cannot open %s", directory);
    struct sockaddr_un address = {.sun_family = AF_UNIX}; /* by descriptor: a path may be too long for it */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%.64s", folder, name);
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0) die("cannot make a socket");
    if (!connect(connection, (struct sockaddr *)&address, sizeof address)) return connection;
    snprintf(path, sizeof path, "%s/%s.lock", directory, name);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX)) die("cannot lock the keeper of %s", name);
    if (connect(connection, (struct sockaddr *)&address, sizeof address)) {
        make_directory(own);
        snprintf(path, sizeof path, "%s/home", own);
        make_directory(path);
        snprintf(path, sizeof path, "%s/tmp", own);
        make_directory(path);
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        unlink(address.sun_path);
        if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
            die("cannot listen at %s/%s", directory, name);
        start_keeper(listener, rules_path, directory, name, workspace, own);
        close(listener);
        if (connect(connection, (struct sockaddr *)&address, sizeof address)) die("the session's keeper does not answer");
    }
    close(lock);
    close(folder);
    return connection;
}

/* The name of the session whose directory `path` is in: the first step below the workspaces, or NULL. */
static char *session_of(const char *path, const char *workspaces)
{
    char resolved[PATH_MAX];
    size_t length = strlen(workspaces);
    if (!realpath(path, resolved) || strncmp(resolved, workspaces, length) || resolved[length] != '/') return NULL;
    char *name = strdup(resolved + length + 1);
    if (!name) die("no memory");
    name[strcspn(name, "/")] = 0;
    return *name && *name != '.' ? name : NULL;
}

/* The environment of a session's command: ours without what belongs to opencode. */
static char **environment_for(const char *own)
{
    extern char **environ;
    char home[PATH_MAX + 8], tmp[PATH_MAX + 8];
    const char *shims = rule("shims");
    size_t shims_length = strlen(shims);
    for (int i = 0; i < rule_count; i++)
        if (!strcmp(rules[i].keyword, "unset")) unsetenv(rules[i].value);
    unsetenv("SIDECAR_SHELL_RULES");
    unsetenv("SIDECAR_SESSION_DIRECTORY");
    snprintf(home, sizeof home, "%s/home", own);
    snprintf(tmp, sizeof tmp, "%s/tmp", own);
    const char *now = getenv("HOME");
    if (!now || !strcmp(now, rule("home"))) setenv("HOME", home, 1);
    now = getenv("TMPDIR");
    if (!now || !strcmp(now, rule("tmp"))) setenv("TMPDIR", tmp, 1);
    setenv("SHELL", rule("shell"), 1);
    now = getenv("PATH");
    if (now && !strncmp(now, shims, shims_length) && now[shims_length] == ':') {
        char *rest = strdup(now + shims_length + 1);
        if (rest) setenv("PATH", rest, 1);
    }
    return environ;
}

/* The real program of that name: the first on PATH, whose head has been removed. */
static const char *real_program(const char *name)
{
    static char candidate[PATH_MAX];
    const char *path = getenv("PATH");
    for (const char *entry = path ? path : "/usr/bin:/bin"; *entry;) {
        size_t length = strcspn(entry, ":");
        snprintf(candidate, sizeof candidate, "%.*s/%s", (int)length, entry, name);
        if (length && !access(candidate, X_OK)) return candidate;
        entry += length + (entry[length] == ':');
    }
    errno = ENOENT;
    die("%s is not installed", name);
}

/* Whether opencode may learn that it is in a repository: it then writes an id into `<common directory>/opencode`,
 * through whatever link its agent has put there. */
static int is_plain_repository(void)
{
    struct stat status;
    if (lstat(".git", &status) || !S_ISDIR(status.st_mode) || !lstat(".git/commondir", &status)) return 0;
    return lstat(".git/opencode", &status) || S_ISREG(status.st_mode);
}

/* Whether all that was written to the pipe or socket of `fd` has been read. */
static int is_drained(int fd)
{
    struct stat status;
    struct pollfd end = {fd, 0, 0};
    int left = 0;
    if (fstat(fd, &status) || poll(&end, 1, 0) < 0 || end.revents & (POLLERR | POLLHUP)) return 1; /* no reader */
    if (S_ISFIFO(status.st_mode)) return ioctl(fd, FIONREAD, &left) || !left;
    return !S_ISSOCK(status.st_mode) || ioctl(fd, TIOCOUTQ, &left) || !left;
}

/* opencode stops reading a command's output when we exit: what is still in the pipe would be lost. Bounded,
 * because a process that was left behind may go on writing. */
static void await_reader(void)
{
    for (int waited = 0; waited < DRAIN_MS && !(is_drained(1) && is_drained(2)); waited++) usleep(1000);
}

static int run(const char *name, char **argv)
{
    const char *rules_path = getenv("SIDECAR_SHELL_RULES"), *given = getenv("SIDECAR_SESSION_DIRECTORY");
    errno = 0;
    if (!rules_path) die("SIDECAR_SHELL_RULES is not set");
    rules_path = strdup(rules_path);
    load(rules_path);
    const char *workspaces = rule("workspaces");
    int is_shell = !strcmp(name, "bash") || !strcmp(name, "sh");
    for (char **a = argv + 1; !strcmp(name, "git") && *a; a++)
        if (!strcmp(*a, "--git-common-dir") && !is_plain_repository()) die("not shown to opencode as a repository");
    /* opencode's own directory belongs to no session: git asks there what it is. */
    char *session = session_of(is_shell && given ? given : ".", workspaces);
    if (!session) session = strdup(".none");
    char workspace[PATH_MAX], own[PATH_MAX];
    snprintf(workspace, sizeof workspace, "%s/%s", workspaces, session);
    snprintf(own, sizeof own, "%s/%s", rule("private"), session);
    char **variables = environment_for(own);
    int count = 0;
    while (argv[count]) count++;
    char **arguments = calloc((size_t)count + 2, sizeof(char *));
    if (!arguments) die("no memory");
    arguments[0] = (char *)(is_shell ? rule("shell") : real_program(name));
    memcpy(arguments + 1, argv, (size_t)count * sizeof(char *));
    arguments[1] = arguments[0];
    int32_t status;
    char taken;
    for (int attempt = 0;; attempt++) {
        client_connection = reach_keeper(rules_path, session, workspace, own);
        if (!send_request(client_connection, arguments, variables) && !read_all(client_connection, &taken, 1)) break;
        if (attempt == 5) die("the session's keeper does not take the command");
        close(client_connection);
        usleep(10000u << attempt);
    }
    struct sigaction action = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < 4; i++) sigaction((int[]){SIGTERM, SIGINT, SIGHUP, SIGQUIT}[i], &action, NULL);
    if (read_all(client_connection, (char *)&status, sizeof status)) {
        errno = 0;
        die("the session's processes were ended");
    }
    await_reader();
    /* As a shell does. opencode does not notice a command that ends by a signal: it waits for its time limit. */
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* opencode's own variables: its shell is this program, and its PATH begins with it. */
static void set_variables(void)
{
    const char *path = getenv("PATH"), *shims = rule("shims");
    char *value;
    setenv("SHELL", rule("launcher"), 1);
    setenv("SIDECAR_SHELL_RULES", rule("session_rules"), 1);
    setenv("TMPDIR", rule("tmp"), 1);
    if (asprintf(&value, "%s:%s", shims, path ? path : "/usr/local/bin:/usr/bin:/bin") < 0) die("no memory");
    setenv("PATH", value, 1);
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/');
    name = name ? name + 1 : argv[0];
    program = name;
    errno = 0;
    if (!strcmp(name, "session-keeper") && argc == 7) keep(argv);
    if (!strcmp(name, "confine")) {
        if (argc < 2) die("usage: confine RULES COMMAND...");
        load(argv[1]);
        confine(NULL);
        drop_capabilities();
        limit();
        if (argc == 2) return 0;
        set_variables();
        /* A file that is no program is not given to a shell, as execvp would. */
        (strchr(argv[2], '/') ? execv : execvp)(argv[2], argv + 2);
        die("cannot run %s", argv[2]);
    }
    return run(name, argv);
}
