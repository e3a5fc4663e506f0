package main

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// Calls that newer architectures do without.
var (
	alsoAllowed = []uintptr{unix.SYS_POLL, unix.SYS_EPOLL_WAIT, unix.SYS_ARCH_PRCTL, unix.SYS_NEWFSTATAT}
	alsoFiles   = []uintptr{unix.SYS_OPEN, unix.SYS_UNLINK}
)
