package capture

import (
	"bytes"
	"io"
	"os"
	"time"
)

// Window is a stretch of time, from After to before Before, ns since the epoch;
// 0 = open. AfterFirst and BeforeFirst are the same, counted from the first
// packet of all inputs.
type Window struct{ After, Before, AfterFirst, BeforeFirst int64 }

func (w *Window) open() bool { return *w == Window{} }

// From gives the window with what counts from the first packet made absolute.
func (w Window) From(first int64) Window {
	if w.AfterFirst != 0 {
		w.After = first + w.AfterFirst
	}
	if w.BeforeFirst != 0 {
		w.Before = first + w.BeforeFirst
	}
	return Window{After: w.After, Before: w.Before}
}

// narrow leaves files out that lie outside of the window. The packets of a file
// may be out of order by less than what counts as a step of the clock. When a file
// ends the next of its rotation tells, else its own last packets.
func (m *merge) narrow() {
	if m.window.open() {
		return
	}
	var first int64
	found := false
	for _, in := range m.inputs {
		if in.first != 0 && (!found || in.first < first) {
			first, found = in.first, true
		}
	}
	w := m.window.From(first)
	next := m.successors()
	for i, in := range m.inputs {
		if in.f.stream || in.first == 0 {
			continue
		}
		s := &in.f.stats
		if w.Before != 0 && in.first >= w.Before+stepBack {
			s.First, s.Unread = in.first, "begins at "+clock(in.first)+", after the time that is asked for"
			continue
		}
		in.f.before = w.Before
		if w.After == 0 || in.first >= w.After {
			continue
		}
		last, ok := next[i]
		if !ok || last >= w.After-stepBack {
			last, ok = in.lastTime()
		}
		if ok && last < w.After-stepBack {
			s.First, s.Last, s.Unread = in.first, last, "ends at "+clock(last)+", before the time that is asked for"
		}
	}
}

// Outside says whether a time lies outside of an absolute window.
func (w *Window) Outside(t int64) bool {
	return w.After != 0 && t < w.After || w.Before != 0 && t >= w.Before
}

func clock(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000Z") }

// leave ends a file that has passed the window.
func (f *file) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	f.stats.Unread = "left at " + clock(f.last) + ", after the time that is asked for"
}

// How far back the last packet of a file is looked for, bytes.
const (
	tailLeast = 8 << 10
	tailMost  = 1 << 20
	tailChain = 3           // records that must follow each other up to the end of the file
	tailSpan  = 366 * 86400 // a file lasts less, s
)

// lastTime finds when an uncompressed file ends, without reading it: the latest
// of its last packets. False: it cannot be told.
func (in *input) lastTime() (last int64, ok bool) {
	if in.form == nil {
		return 0, false
	}
	h, err := os.Open(in.f.stats.Path)
	if err != nil {
		return 0, false
	}
	defer h.Close()
	size := in.f.stats.SizeOnDisk
	for n := int64(tailLeast); ; n *= 8 {
		n = min(n, size)
		b := make([]byte, n)
		if _, err := h.ReadAt(b, size-n); err != nil && err != io.EOF {
			return 0, false
		}
		in.f.disk.Add(n)
		switch p := in.form.(type) {
		case *pcapFile:
			last, ok = p.tail(b, in.first)
		case *ngFile:
			last, ok = p.tail(b)
		}
		if ok || n == size || n >= tailMost {
			break
		}
	}
	if ok && (last < in.first-stepBack || last-in.first > tailSpan*1e9) {
		return 0, false
	}
	return max(last, in.first), ok
}

// tail looks for records that follow each other from anywhere in b to its end,
// where the last may be cut. The first place from which they do is taken: chains
// that begin inside a packet run into the true one, or nowhere.
func (f *pcapFile) tail(b []byte, first int64) (last int64, ok bool) {
	plausible := func(h []byte) (size int, at int64, ok bool) {
		sec, frac, capLen, orig := int64(f.u32(h)), int64(f.u32(h[4:])), int64(f.u32(h[8:])), int64(f.u32(h[12:]))
		if f.swapped {
			capLen, orig = min(capLen, orig), max(capLen, orig)
		}
		unit := int64(1e3)
		if f.nano {
			unit = 1
		}
		at = sec*1e9 + frac*unit
		return f.head + int(capLen), at, frac*unit < 1e9 && capLen <= orig && capLen <= maxRecord && at >= first-stepBack && at-first < tailSpan*1e9
	}
	for from := 0; from+f.head <= len(b); from++ {
		last, n := int64(0), 0
		for at := from; ; n++ {
			rest := len(b) - at
			size, when, ok := 0, int64(0), true
			if rest >= f.head {
				size, when, ok = plausible(b[at:])
			}
			if !ok {
				break
			}
			if rest < f.head || size > rest { // the end, or a record that it cuts
				if n >= tailChain {
					return last, true
				}
				break
			}
			last = max(last, when)
			at += size
		}
	}
	return 0, false
}

// tail walks from block to block backwards: each ends with its length. Times are
// those of the interfaces that the begin of the file describes; another section
// has its own, and ends the walk.
func (f *ngFile) tail(b []byte) (last int64, ok bool) {
	for n := 0; len(b) >= 12; n++ {
		total := int64(f.u32(b[len(b)-4:]))
		if total < 12 || total%4 != 0 || total > int64(len(b)) {
			return last, ok && n > tailChain
		}
		block := b[int64(len(b))-total:]
		b = b[:int64(len(b))-total]
		if int64(f.u32(block[4:])) != total {
			return 0, false
		}
		switch kind := f.u32(block); {
		case bytes.Equal(block[:4], []byte{0x0a, 0x0d, 0x0d, 0x0a}):
			return last, ok
		case kind == blockEnhanced && total >= 32:
			id := f.u32(block[8:])
			if int(id) >= len(f.ifaces) {
				return 0, false
			}
			at := f.ifaces[id].when(uint64(f.u32(block[12:]))<<32 | uint64(f.u32(block[16:])))
			last, ok = max(last, at), true
		}
	}
	return last, ok
}
