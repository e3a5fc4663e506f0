//go:build !linux

package replay

import (
	"errors"
	"time"
)

func nap(d time.Duration) { time.Sleep(d) }

func cpuTime() time.Duration { return 0 }

func maxSockets() int { return 0 }

func finer() {}

func realtime() error { return errors.New("on Linux only") }
func ordinary()       {}

func localPorts() (low, high int) { return 0, 0 }
