//! The profile for containers that bring none: what ordinary programs need, and nothing that reaches into the
//! kernel's keeping of the machine. In the spirit of the list that Docker and containerd use; as data.

use crate::spec::{Action, ArgumentRule, Operator, Seccomp, SyscallRule};

/// Allowed to everybody, by topic; words.
const ALLOWED: &[&str] = &[
    // Files and directories.
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 \
     fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 \
     fdatasync fgetxattr file_getattr file_setattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 \
     fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat \
     inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat listmount \
     listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat \
     name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead \
     readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr \
     setxattrat splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs tee \
     truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev",
    // Memory.
    "brk cachestat get_mempolicy get_robust_list madvise map_shadow_stack membarrier memfd_create memfd_secret \
     mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc \
     pkey_free pkey_mprotect process_madvise process_mrelease remap_file_pages set_robust_list set_thread_area \
     get_thread_area modify_ldt arch_prctl",
    // Processes and their identity.
    "capget capset execve execveat exit exit_group fork getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups \
     getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit \
     getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill pidfd_getfd pidfd_open pidfd_send_signal \
     prctl prlimit64 ptrace process_vm_readv process_vm_writev rseq sched_get_priority_max sched_get_priority_min \
     sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
     sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
     seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority \
     setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid \
     setuid32 set_tid_address tgkill times tkill ugetrlimit uretprobe vfork wait4 waitid waitpid landlock_add_rule \
     landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules lsm_set_self_attr",
    // Signals, time, waiting.
    "alarm adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait \
     epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv \
     futex_wake getitimer gettimeofday io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
     io_submit nanosleep _newselect pause poll ppoll ppoll_time64 pselect6 pselect6_time64 restart_syscall \
     rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo select setitimer sigaltstack signalfd signalfd4 sigprocmask sigreturn \
     time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
     timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    // Sockets, pipes, messages.
    "accept accept4 bind connect getpeername getsockname getsockopt ioctl ipc listen mq_getsetattr mq_notify mq_open \
     mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd \
     pipe pipe2 recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 \
     sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair",
    // The machine, read only.
    "getcpu getrandom sysinfo uname",
];

/// Allowed to who has the capability; words.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fanotify_mark fsconfig fsmount fsopen fspick lookup_dcookie mount \
         mount_setattr move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The `CLONE_NEW…` flags: a thread or process may be made, but no namespace.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// `PER_LINUX`, `PER_LINUX32`, `UNAME26`, both, and the query.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// AF_ALG and AF_VSOCK: reach into the kernel's cryptography, and out to the hypervisor.
const REFUSED_FAMILIES: [u64; 2] = [38, 40];

/// The profile for a container whose bounding set has these capabilities.
#[must_use]
pub fn default_profile(bounding: &[String]) -> Seccomp {
    let has = |name: &str| bounding.iter().any(|capability| capability == name);
    let mut syscalls = vec![rule(&ALLOWED.join(" "), vec![])];
    for value in PERSONALITIES {
        syscalls.push(rule("personality", vec![compare(Operator::Equal, value, 0)]));
    }
    let families = REFUSED_FAMILIES.map(|family| compare(Operator::NotEqual, family, 0));
    syscalls.push(rule("socket", families.to_vec()));
    for (capability, names) in BY_CAPABILITY {
        if has(capability) {
            syscalls.push(rule(names, vec![]));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        syscalls.push(rule("clone", vec![compare(Operator::MaskedEqual, NAMESPACE_FLAGS, 0)]));
        // Its flags are in memory, where a filter cannot look: without the call, C libraries use clone(2).
        let errno_ret = Some(libc::ENOSYS.unsigned_abs());
        syscalls.push(SyscallRule { action: Action::Errno, errno_ret, ..rule("clone3", vec![]) });
    }
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: None,
        architectures: architectures(),
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn architectures() -> Vec<String> {
    let names: &[&str] = if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else {
        &["SCMP_ARCH_AARCH64"]
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn rule(names: &str, args: Vec<ArgumentRule>) -> SyscallRule {
    let names = names.split_whitespace().map(str::to_owned).collect();
    SyscallRule { names, action: Action::Allow, errno_ret: None, args }
}

fn compare(op: Operator, value: u64, value_two: u64) -> ArgumentRule {
    ArgumentRule { index: 0, value, value_two, op }
}

#[cfg(test)]
mod tests {
    use super::super::Filter;
    use super::super::table::SYSCALLS;
    use super::*;

    #[test]
    fn every_name_is_a_system_call() {
        let names = ALLOWED
            .iter()
            .chain(BY_CAPABILITY.iter().map(|(_, names)| names))
            .flat_map(|names| names.split_whitespace());
        let unknown: Vec<_> = names.filter(|name| !SYSCALLS.iter().any(|(known, ..)| known == name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn it_compiles_with_and_without_privileges() {
        let plain = Filter::compile(&default_profile(&[])).unwrap();
        let admin = Filter::compile(&default_profile(&["CAP_SYS_ADMIN".to_owned()])).unwrap();
        assert_ne!(plain, admin);
    }
}
