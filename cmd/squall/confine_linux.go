//go:build linux && (amd64 || arm64)

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// giveUpRoot leaves root and every capability, in all threads and for good.
func (b *becoming) giveUpRoot() error {
	if b.done {
		return nil
	}
	if b.drop && !b.root {
		for capability := range uintptr(64) { // needs CAP_SETPCAP, which root has where it may do this
			if _, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability, 0); e != 0 {
				break
			}
		}
		err := syscall.Setgroups(nil)
		if err == nil {
			err = syscall.Setresgid(b.gid, b.gid, b.gid)
		}
		if err == nil {
			err = syscall.Setresuid(b.uid, b.uid, b.uid)
		}
		if err != nil {
			return fmt.Errorf("root cannot become %s here (%w), and packets are not parsed as root: -Z USER, or -Z root to do so all the same", b.name, err)
		}
	}
	if !b.root {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var have, none [2]unix.CapUserData
		if err := unix.Capget(&header, &have[0]); err == nil && have != none {
			if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0); e != 0 {
				return fmt.Errorf("capabilities cannot be given up: %w", e)
			}
		}
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) // went with the permitted ones
		if os.Geteuid() == 0 || os.Getuid() == 0 {
			return errors.New("this is root, and packets are not parsed as root: -Z USER, or -Z root to do so all the same")
		}
	}
	b.done = true
	return nil
}

// confine gives up root, then the way back, then the files outside dir, then
// the system calls that reading packets does not need. Without a dir no file
// can be opened at all; with one, what a ring of files in it takes is left.
func (b *becoming) confine(dir string) (note string, err error) {
	if err := b.giveUpRoot(); err != nil {
		return "", exitError{exitFailed, err}
	}
	runtime.LockOSThread() // the calls must come from one thread
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "the kernel knows no new privileges not", nil
	}
	// Without a dir the next filter leaves nothing that this could forbid.
	if err := landlock(dir); err != nil && dir != "" {
		note = fmt.Sprintf("the kernel has no Landlock (%v): files outside %s are not out of reach", err, dir)
	}
	filter := systemCalls(dir != "")
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return fmt.Sprintf("the kernel has no seccomp (%v): no sandbox", e), nil
	}
	return note, nil
}

// ofRing is what files of a ring need of their directory.
const ofRing = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_REG

// landlock takes all of the file system from every thread but what a ring of
// files in dir needs: the first version of Landlock (Linux 5.13), which knows
// thirteen ways to use it.
func landlock(dir string) error {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}
	rules, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if e != 0 {
		return e
	}
	defer unix.Close(int(rules))
	if dir != "" {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// The structure is packed: 12 bytes, without the padding that Go adds.
		beneath := unix.LandlockPathBeneathAttr{Allowed_access: ofRing, Parent_fd: int32(fd)}
		if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, rules, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&beneath)), 0, 0, 0); e != 0 {
			return e
		}
	}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); e != 0 {
		return e
	}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); e != 0 {
		return e
	}
	return nil
}

// allowed are the system calls of the runtime, of reading and writing what is
// open already, and of packet sockets.
var allowed = []uintptr{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_LSEEK, unix.SYS_CLOSE, unix.SYS_FSTAT,
	unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FCNTL,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_BRK, unix.SYS_MINCORE,
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_MEMBARRIER, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRUSAGE, unix.SYS_GETRANDOM, unix.SYS_UNAME,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_PPOLL,
	unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN, unix.SYS_RECVFROM,
}

// ofFiles are those that create and remove files.
var ofFiles = []uintptr{unix.SYS_OPENAT, unix.SYS_UNLINKAT, unix.SYS_GETDENTS64, unix.SYS_FCHMOD, unix.SYS_FCHOWN, unix.SYS_BIND}

// commands are what ioctl is let do: the size of the terminal, and looking at
// an interface that is back.
var commands = []uint32{unix.TIOCGWINSZ, unix.TCGETS, unix.SIOCGIFINDEX, unix.SIOCGIFFLAGS, unix.SIOCGIFHWADDR}

// systemCalls makes the seccomp filter: classic BPF over struct seccomp_data
// (linux/seccomp.h). What is not allowed fails with EPERM.
func systemCalls(files bool) []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		bits   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		result = unix.BPF_RET | unix.BPF_K

		number, architecture, arg0, arg1 = 0, 4, 16, 24 // the lower halves of arguments, on little-endian machines

		allow = unix.SECCOMP_RET_ALLOW
		deny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		none  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	)
	f := []unix.SockFilter{
		{Code: load, K: architecture},
		{Code: equal, K: auditArch, Jt: 1},
		{Code: result, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: number},
	}
	calls := append(append([]uintptr{}, allowed...), alsoAllowed...)
	if files {
		calls = append(calls, ofFiles...)
		calls = append(calls, alsoFiles...)
	}
	for _, n := range calls {
		f = append(f, unix.SockFilter{Code: equal, K: uint32(n), Jf: 1}, unix.SockFilter{Code: result, K: allow})
	}
	// Threads, not processes; clone3 hides its flags, so there is none.
	f = append(f, unix.SockFilter{Code: equal, K: unix.SYS_CLONE3, Jf: 1}, unix.SockFilter{Code: result, K: none},
		unix.SockFilter{Code: equal, K: unix.SYS_CLONE, Jf: 4}, unix.SockFilter{Code: load, K: arg0},
		unix.SockFilter{Code: bits, K: unix.CLONE_THREAD, Jf: 1}, unix.SockFilter{Code: result, K: allow}, unix.SockFilter{Code: result, K: deny},
		unix.SockFilter{Code: equal, K: unix.SYS_TGKILL, Jf: 4}, unix.SockFilter{Code: load, K: arg0}, // signals to itself
		unix.SockFilter{Code: equal, K: uint32(os.Getpid()), Jf: 1}, unix.SockFilter{Code: result, K: allow}, unix.SockFilter{Code: result, K: deny},
		unix.SockFilter{Code: equal, K: unix.SYS_IOCTL, Jt: 1}, unix.SockFilter{Code: result, K: deny}, unix.SockFilter{Code: load, K: arg1})
	for _, c := range commands {
		f = append(f, unix.SockFilter{Code: equal, K: c, Jf: 1}, unix.SockFilter{Code: result, K: allow})
	}
	return append(f, unix.SockFilter{Code: result, K: deny})
}
