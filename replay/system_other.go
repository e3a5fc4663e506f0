//go:build !linux

package replay

import (
	"syscall"
	"time"
)

func nap(d time.Duration) { time.Sleep(d) }

func cpuTime() time.Duration { return 0 }

func maxSockets() int { return 0 }

func socketOptions(_, _ string, _ syscall.RawConn) error { return nil }

func localPorts() (low, high int) { return 0, 0 }
