package main

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// Calls that only this architecture has under these names.
var (
	alsoAllowed = []uintptr{unix.SYS_FSTATAT}
	alsoFiles   []uintptr
)
