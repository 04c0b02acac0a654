"""The system calls a container may make: everything else is refused.

How the table was made. A call is allowed when an ordinary program (shell, compiler, Python, CUDA, NCCL,
MPI, databases) uses it and the kernel itself limits it to what the process owns. It is left out when it
changes the machine (mount, modules, clock, swap, reboot, quotas), reaches kernel code that is rarely run
and often broken (keyrings, bpf, perf, userfaultfd, io_uring), or makes a new user namespace, which would
hand a process every capability inside and with them the code that capabilities guard.

Refused calls return EPERM. Some return ENOSYS instead, because the C library or a run-time then uses the
older call whose arguments can be looked at. runc also answers ENOSYS to calls newer than it knows. It and crun
skip names that its libseccomp does not know, so the table can name calls of newer kernels.

Only the machine's own architecture is allowed: a second calling convention (32 bit, x32) is a second set
of numbers to get wrong. The layout of names and conditions is that of the runtime-spec's linux.seccomp.
"""

import errno
import platform
from pathlib import Path

from mlbox.codec import decode_json
from mlbox.errors import ContainerError
from mlbox.oci.runtime import Seccomp, SeccompArg, SeccompRule

_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

ALLOWED = {
    "files and folders": """
        access chdir chmod chown close close_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate
        fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync flock fstat fstatfs fsync ftruncate
        futimesat getcwd getdents getdents64 lchown link linkat lseek lstat mkdir mkdirat mknod mknodat newfstatat
        open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
        readv rename renameat renameat2 rmdir stat statfs statx symlink symlinkat sync sync_file_range syncfs
        truncate umask unlink unlinkat utime utimensat utimes write writev chroot cachestat
        fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr
        lsetxattr removexattr setxattr copy_file_range sendfile splice tee vmsplice
        inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
        name_to_handle_at
    """,
    # mbind, move_pages and the rest of NUMA placement stay inside the container's cpuset; move_pages and
    # process_madvise ask ptrace's permission for other processes. libnuma, NCCL and UCX call them.
    "memory": """
        brk get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create mincore mlock mlock2 mlockall
        mmap move_pages mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
        process_madvise process_mrelease remap_file_pages set_mempolicy set_mempolicy_home_node
    """,
    # ptrace and process_vm_* reach only processes of the same container and user, and since Linux 4.8 cannot be
    # used to get around this filter: debuggers, py-spy, and MPI's and UCX's shared-memory transfers need them.
    "processes and threads": """
        arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getegid
        geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit
        getrusage getsid gettid getuid ioprio_get ioprio_set kcmp kill pidfd_getfd pidfd_open pidfd_send_signal
        prctl prlimit64 process_vm_readv process_vm_writev ptrace rseq sched_get_priority_max
        sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
        seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setpgid
        setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid tgkill times tkill uname
        vfork wait4 waitid getcpu
    """,
    "signals": """
        alarm pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
        rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4
    """,
    "time": """
        clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timer_create
        timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
        adjtimex clock_adjtime
    """,
    "waiting": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
        eventfd eventfd2 futex futex_requeue futex_wait futex_waitv futex_wake poll ppoll pselect6 select
        io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
    """,
    "between processes": """
        mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd pipe
        pipe2 semctl semget semop semtimedop shmat shmctl shmdt shmget
    """,
    "network": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg
        sendmsg sendto setsockopt shutdown socketpair
    """,
    "the rest": """
        getrandom ioctl landlock_add_rule landlock_create_ruleset landlock_restrict_self sysinfo
    """,
}

# clone3 takes its flags in memory, where a filter cannot look; told ENOSYS, the C library uses clone.
# io_uring performs other calls out of the filter's sight; its users (libuv, databases) fall back to epoll.
_MISSING = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (linux/sched.h).
_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

# Addresses of this machine's kernel subsystems with long records of faults (AF_VSOCK, AF_ALG, ...) stay shut:
# AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET (which CAP_NET_RAW guards).
_SOCKETS = (1, 2, 10, 16, 17)

# PER_LINUX, PER_LINUX32, each with and without ADDR_NO_RANDOMIZE and UNAME26, and the question 0xffffffff.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF)

# What a capability the user adds makes useful; without it the kernel would refuse these anyway.
BY_CAPABILITY = {
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fanotify_mark fsconfig fsmount fsopen fspick listmount lookup_dcookie mount
        mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname
        setns statmount syslog umount umount2 unshare
    """,
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "migrate_pages",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}


def default_profile(capabilities: tuple[str, ...], machine: str | None = None) -> Seccomp:
    """Return the profile of a container that holds `capabilities`, for this machine's architecture."""
    architecture = _ARCHITECTURES.get(machine or platform.machine())
    added = sorted({name for held in capabilities for name in BY_CAPABILITY.get(held, "").split()})
    names = [name for group in ALLOWED.values() for name in group.split()]
    rules = [SeccompRule(names=(*names, *added), action=_ALLOW)]
    if "clone" not in added:
        no_namespaces = SeccompArg(index=0, value=_NEW_NAMESPACES, value_two=0, op="SCMP_CMP_MASKED_EQ")
        rules.append(SeccompRule(names=("clone",), action=_ALLOW, args=(no_namespaces,)))
    rules += [_when("socket", 0, family) for family in _SOCKETS]
    rules += [_when("personality", 0, value) for value in _PERSONALITIES]
    missing = tuple(name for name in _MISSING if name not in added)
    rules.append(SeccompRule(names=missing, action=_ERRNO, errno_ret=errno.ENOSYS))
    return Seccomp(
        default_action=_ERRNO,
        default_errno_ret=errno.EPERM,
        architectures=(architecture,) if architecture else (),
        syscalls=tuple(rules),
    )


def load_profile(path: Path) -> Seccomp:
    """Read the runtime-spec's linux.seccomp object from the file a user named."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ContainerError(f"seccomp profile {path}: {problem.strerror}") from problem
    return decode_json(data, Seccomp, what=f"seccomp profile {path}", error=ContainerError)


def _when(name: str, index: int, value: int) -> SeccompRule:
    equal = SeccompArg(index=index, value=value, op="SCMP_CMP_EQ")
    return SeccompRule(names=(name,), action=_ALLOW, args=(equal,))
