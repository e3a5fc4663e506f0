package capture

import (
	"io"
	"time"
)

const (
	// tapAhead is how many batches are read ahead of each pipe, so that its
	// writer is not held up by what is done with them.
	tapAhead = 64
	// tapWait is how long the packets of other taps wait for one that is silent.
	tapWait = time.Second
)

// Tap is a stream of packets, pcap or pcapng, that comes as it happens.
type Tap struct {
	Name  string
	R     io.Reader
	Clock Clock // the times of its packets are set right by it
}

// taps merges streams by the time of their packets.
type taps struct {
	list  []*tapStream
	since time.Time // that something waits for a silent tap
	tick  *time.Ticker
}

type tapStream struct {
	stats func() FileStats
	in    chan *Batch
	stop  chan struct{}
	head  *Batch
	at    int
	gone  bool
}

// OpenTaps reads several streams at once, each a named input. Packets come in
// the order of their times, as far as all taps deliver: one that is silent is
// waited for a second. Next returns an empty batch when nothing comes for a
// moment. What is no capture is told in the Damage of its FileStats.
func OpenTaps(list []Tap) Source {
	t := &taps{tick: time.NewTicker(tapWait / 5)}
	for i, tap := range list {
		s := &tapStream{in: make(chan *Batch, tapAhead), stop: make(chan struct{})}
		opened := make(chan *file, 1)
		var f *file
		s.stats = func() FileStats {
			select {
			case f = <-opened:
			default:
			}
			if f == nil {
				return FileStats{Path: tap.Name, Drops: -1}
			}
			return f.snapshot()
		}
		t.list = append(t.list, s)
		go func() {
			defer close(s.in)
			f, err := openStream(tap.R, tap.Name)
			if err != nil {
				f = &file{stats: FileStats{Path: tap.Name, Drops: -1, Damage: &Damage{Frame: 1, Reason: err.Error()}}}
				opened <- f
				return
			}
			f.number, f.stream, f.stats.Clock = uint32(i), true, tap.Clock
			opened <- f
			for {
				b, err := f.nextBatch()
				if err != nil {
					return
				}
				select {
				case s.in <- b:
				case <-s.stop:
					b.Release()
					return
				}
			}
		}()
	}
	return t
}

// fill gets the next batch of a tap; false when there is none yet.
func (s *tapStream) fill() bool {
	if s.gone || s.head != nil {
		return true
	}
	select {
	case b, ok := <-s.in:
		if !ok {
			s.gone = true
		}
		s.head, s.at = b, 0
	default:
		return false
	}
	return true
}

func (t *taps) Next() (*Batch, error) {
	for {
		all, some, over := true, false, true
		for _, s := range t.list {
			all = s.fill() && all
			some = some || s.head != nil
			over = over && s.gone && s.head == nil
		}
		switch {
		case over:
			return nil, io.EOF
		case !some:
			t.since = time.Time{}
		case all:
			t.since = time.Time{}
			return t.merge(true), nil
		case t.since.IsZero():
			t.since = time.Now()
		case time.Since(t.since) >= tapWait:
			return t.merge(false), nil
		}
		if !some && len(t.list) == 1 { // one tap: nothing to be ordered, so nothing to wait for
			s := t.list[0]
			select {
			case b, ok := <-s.in:
				if s.gone = !ok; ok {
					return b, nil
				}
			case <-t.tick.C:
				return NewBatch(nil, nil), nil
			}
			continue
		}
		<-t.tick.C
		if !some {
			return NewBatch(nil, nil), nil
		}
	}
}

// merge takes packets in order; with care, until a tap that still delivers has
// no more at hand.
func (t *taps) merge(careful bool) *Batch {
	packets := make([]Packet, 0, mergeBatch)
	var used []*Batch
	for len(packets) < mergeBatch {
		var best *tapStream
		for _, s := range t.list {
			if s.head != nil && (best == nil || s.head.Packets[s.at].Time < best.head.Packets[best.at].Time) {
				best = s
			}
		}
		if best == nil {
			break
		}
		packets = append(packets, best.head.Packets[best.at])
		if best.at++; best.at == len(best.head.Packets) {
			used = append(used, best.head)
			best.head = nil
			if !best.fill() && careful {
				break
			}
		}
	}
	for _, s := range t.list {
		if s.head != nil && s.at > 0 {
			s.head.Retain(1)
			used = append(used, s.head)
		}
	}
	return NewBatch(packets, func() {
		for _, b := range used {
			b.Release()
		}
	})
}

func (t *taps) Files() []FileStats {
	var all []FileStats
	for _, s := range t.list {
		all = append(all, s.stats())
	}
	return all
}

// Close lets go of the streams; a read that blocks ends when its writer does.
func (t *taps) Close() error {
	t.tick.Stop()
	for _, s := range t.list {
		close(s.stop)
		if s.head != nil {
			s.head.Release()
			s.head = nil
		}
		go func() {
			for b := range s.in {
				b.Release()
			}
		}()
	}
	return nil
}
