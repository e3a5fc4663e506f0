package overlay

import "squall/dissect"

// maxHead is how many bytes of an incomplete TCP message a protocol waits for.
// The engine keeps 4 KiB of a direction; a message that is longer is reported
// from its beginning, and the rest of it passes as a body.
const maxHead = 3 << 10

// The protocols over TCP report a message from its head and let its body pass,
// however long it is. Flow.A holds how much of a body is still to come: the
// client's in the low 32 bits, the node's in the high ones.

func bodyShift(f *dissect.Flow) uint {
	if f.FromClient {
		return 0
	}
	return 32
}

// takeBody says how many of the next bytes belong to a body; 0 = a message begins.
func takeBody(f *dissect.Flow, have int) int {
	s := bodyShift(f)
	n := min(uint64(uint32(f.A>>s)), uint64(have))
	f.A -= n << s
	return int(n)
}

// leaveBody consumes a message of total bytes of which have are there, and
// leaves the others to takeBody. A total over 4 GiB is cut to it.
func leaveBody(f *dissect.Flow, total uint64, have int) int {
	if total <= uint64(have) {
		return int(total)
	}
	s := bodyShift(f)
	rest := min(total-uint64(have), 1<<32-1)
	f.A = f.A&^(uint64(1<<32-1)<<s) | rest<<s
	return have
}

// wait reports whether more bytes of a message may still come: not if the
// snapshot length cut them off, and not if there are too many already.
func wait(d *dissect.Datagram) bool { return !d.Cut && len(d.Payload) < maxHead }

// noSession is the lifetime, ns, of an answer that attaches nobody: what the
// client asks next is a wish of its own, not a refresh.
const noSession = 1

// hash1 turns a small number into a transaction key that is never 0.
func hash1(v uint64) uint64 { return dissect.Mix64(v+1) | 1 }

// hashKey is a transaction key of some bytes, never 0.
func hashKey(seed uint64, b []byte) uint64 { return dissect.Hash64(seed, b) | 1 }
