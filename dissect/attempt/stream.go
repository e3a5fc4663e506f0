package attempt

import "squall/dissect"

const (
	// streamBytes is how much of a direction is kept while a message is incomplete.
	streamBytes = 4 << 10
	// maxHeld is how many segments may wait for an earlier one.
	maxHeld = 4
	// probeBytes of a direction that no protocol knows end the asking.
	probeBytes = 512
	// maxStreams bounds the buffers of an engine; over it old connections are
	// no longer read, so that new ones are.
	maxStreams = 1 << 13
)

// stream puts the first bytes of both directions of a connection in order.
type stream struct {
	dir  [2]half
	flow int32 // its user
}

type half struct {
	buf     []byte // not consumed yet
	next    uint32 // sequence number after buf
	seen    int64  // consumed
	started bool
	begun   bool // past where a balancer may say for whom it speaks
	dead    bool
	held    []heldSegment
}

type heldSegment struct {
	seq  uint32
	data []byte
}

func (e *Engine) dropStream(f *flow) {
	if f.stream == none {
		return
	}
	s := e.streams[f.stream]
	for i := range s.dir {
		buf := s.dir[i].buf[:0]
		if cap(buf) > 2*streamBytes {
			buf = nil
		}
		s.dir[i] = half{buf: buf}
	}
	e.freeStr = append(e.freeStr, f.stream)
	f.stream = none
}

// takeStream gives a flow a stream, if need be that of another flow.
func (e *Engine) takeStream(fi int32) {
	if len(e.freeStr) == 0 && len(e.streams) >= min(maxStreams, max(e.cfg.MaxFlows/2, 1)) {
		e.streamHand = (e.streamHand + 1) % len(e.streams)
		victim := e.streams[e.streamHand].flow
		e.stats.GivenUp++
		e.flows.at(victim).mem.Done = true
		e.dropStream(e.flows.at(victim))
	}
	f := e.flows.at(fi)
	if n := len(e.freeStr); n > 0 {
		f.stream = e.freeStr[n-1]
		e.freeStr = e.freeStr[:n-1]
	} else {
		f.stream = int32(len(e.streams))
		e.streams = append(e.streams, new(stream))
	}
	e.streams[f.stream].flow = fi
}

// tcpPayload shows the bytes of a segment to the protocol of its flow.
func (e *Engine) tcpPayload(fi int32, d *dissect.Datagram, fromA bool) (changed bool) {
	f := e.flows.at(fi)
	if f.probes >= maxProbes && f.proto == unknown || f.mem.Done {
		e.dropStream(f)
		return false
	}
	if f.stream == none {
		if f.over {
			return false
		}
		e.takeStream(fi)
	}
	side := 0
	if fromA {
		side = 1
	}
	h := &e.streams[f.stream].dir[side]
	if h.dead {
		return false
	}
	if !h.started {
		h.started, h.next = true, d.Seq
		// The sequence numbers of the handshake say where the bytes begin.
		base := e.txns.at(f.head)
		for base.next != none {
			base = e.txns.at(base.next)
		}
		if fromA == base.clientA {
			h.next = base.isn + 1
		} else if base.peerISN != 0 {
			h.next = base.peerISN + 1
		}
	}
	data, seq := d.Payload, d.Seq
	if off := int32(h.next - seq); off > 0 {
		if int(off) >= len(data) {
			return false // a repeat
		}
		data, seq = data[off:], h.next
	}
	if seq != h.next {
		if len(h.held) >= maxHeld || len(data) > streamBytes || seq-h.next > 1<<16 {
			e.giveUp(h)
			return false
		}
		h.held = append(h.held, heldSegment{seq, append([]byte(nil), data...)})
		return false
	}
	changed = e.feed(fi, h, d, data, fromA)
	h.next += uint32(len(data))
	if d.Cut && d.PayloadLen > len(d.Payload) {
		e.giveUp(h)
	}
	for again := true; again && !h.dead; {
		again = false
		for i := 0; i < len(h.held); i++ {
			s := h.held[i]
			off := int32(h.next - s.seq)
			if off < 0 {
				continue
			}
			h.held = append(h.held[:i], h.held[i+1:]...)
			if int(off) < len(s.data) {
				if e.feed(fi, h, d, s.data[off:], fromA) {
					changed = true
				}
				h.next += uint32(len(s.data) - int(off))
			}
			again = true
			break
		}
	}
	return changed
}

func (e *Engine) giveUp(h *half) {
	e.stats.GivenUp++
	h.dead, h.held, h.buf = true, nil, h.buf[:0]
}

// feed adds bytes in order and reads the messages that are complete.
func (e *Engine) feed(fi int32, h *half, d *dissect.Datagram, data []byte, fromA bool) (changed bool) {
	f := e.flows.at(fi)
	if len(h.buf)+len(data) > 1<<16 {
		e.giveUp(h)
		return false
	}
	bytes := data
	if len(h.buf) > 0 {
		h.buf = append(h.buf, data...)
		bytes = h.buf
	}
	e.view = *d
	v := &e.view
	for len(bytes) > 0 && !h.dead {
		if !h.begun && fromA == f.openerA {
			client, n, err := readProxy(bytes)
			if err != nil {
				break
			}
			if h.begun = true; n > 0 {
				// The flow stays what it is, from balancer to node; the clock of the
				// timestamps is the balancer's.
				if r := &e.txns.at(f.head).rec; client != (dissect.Addr{}) {
					r.Behind, r.TSBase = client, 0
				}
				bytes = bytes[n:]
				continue
			}
		}
		v.Payload, v.PayloadLen = bytes, len(bytes)
		named := f.proto == unknown
		if named {
			f.proto, _ = e.tcp.probe(v)
			if f.proto == unknown {
				if f.probes++; len(bytes) > probeBytes {
					h.dead, f.probes = true, maxProbes
				}
				break
			}
			for ti := f.head; ti != none; ti = e.txns.at(ti).next {
				e.txns.at(ti).rec.Protocol = e.protos[f.proto]
			}
			changed = true
		}
		mem := &f.mem
		if mem.Done {
			break
		}
		mem.FromClient, mem.SegLen, mem.Seen, mem.Established = fromA == f.openerA, d.PayloadLen, h.seen, true
		e.msg = dissect.Message{FromClient: mem.FromClient}
		n, err := e.cfg.Protocols[f.proto].Dissect(v, mem, &e.msg)
		if err == dissect.ErrShort {
			break
		}
		if err != nil || n <= 0 || n > len(bytes) {
			if named && fromA != f.openerA { // taken for a question, but it is the node's
				f.proto, f.probes = unknown, maxProbes
				for ti := f.head; ti != none; ti = e.txns.at(ti).next {
					e.txns.at(ti).rec.Protocol = 0
				}
			}
			e.giveUp(h)
			return changed
		}
		if e.message(fi, d, fromA) == dissect.BucketAttempt {
			changed = true
		}
		h.seen += int64(n)
		bytes = bytes[n:]
	}
	if len(bytes) > streamBytes {
		e.giveUp(h)
		return changed
	}
	h.buf = append(h.buf[:0], bytes...)
	return changed
}
