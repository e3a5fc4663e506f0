package replay

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// nap sleeps in the system, whose clock is finer than the runtime's.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&t, nil) // an early wake-up is looked at by the caller
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// maxSockets is how many descriptors this process may have, 0 = not known.
func maxSockets() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int(min(l.Cur, 1<<30))
}

// localPorts are the ports that the system gives to sockets without one, 0 =
// not known.
func localPorts() (low, high int) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, 0
	}
	if _, err := fmt.Sscan(string(b), &low, &high); err != nil {
		return 0, 0
	}
	return low, high
}

// finer makes the naps of this thread as short as they are asked for, and asks
// for the processor in short turns, which come sooner (Linux 6.12; an earlier
// one ignores it).
func finer() {
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	if a, err := unix.SchedGetAttr(0, 0); err == nil && a.Policy == unix.SCHED_NORMAL {
		a.Runtime = uint64(schedulerTurn)
		unix.SchedSetAttr(0, a, 0)
	}
}

// realtime lets this thread run before all that are not real-time; threads that
// it makes do not. ordinary undoes it.
func realtime() error { return schedule(unix.SCHED_RR, 1) }
func ordinary()       { schedule(unix.SCHED_NORMAL, 0) }

func schedule(policy, priority uint32) error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
}

// schedulerTurn is the shortest slice that the kernel gives.
const schedulerTurn = 100 * time.Microsecond
