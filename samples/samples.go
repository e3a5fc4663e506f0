package samples

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"squall/capture"
)

// Sample is a capture that squall carries in itself. It is held as a scenario
// and a seed, not as bytes: simulating one takes less than reading it from a
// disk would be worth.
type Sample struct {
	Name, About string
	Seed        uint64
	Packets     int64 // of a stream for measuring; 0 = a scenario, which has its own
}

// Streams of packets without the truth of single clients, for measuring.
var streams = []struct {
	name, about string
	packets     int64
	emit        func(packets int64, seed uint64, emit func(*capture.Packet))
}{
	{"bench-dense", "for measuring: 7 million packets, 3.4 million attempts", 7_000_000, Dense},
	{"bench-bulk", "for measuring: 3 million packets of 600 bytes, a storm inside", 3_000_000, Bulk},
	{"bench-crowd", "for measuring: 10 million clients of one packet each", 10_000_000, Crowd},
	{"bench-names", "for measuring: 10 million identities of n2n edges, a packet each", 10_000_000, Names},
	{"bench-sprawl", "for measuring: a million nodes, each asked once", 2_000_000, Sprawl},
	{"bench-year", "for measuring: half a million packets, a year of silence, half a million more", 1_000_000, Year},
}

// List is every sample: the scenarios in their order, then the streams for
// measuring.
func List() (all []Sample) {
	for _, s := range Scenarios() {
		all = append(all, Sample{s.Name, s.About, 1, 0})
	}
	for _, s := range streams {
		all = append(all, Sample{s.name, s.about, 1, s.packets})
	}
	return all
}

// Write writes the named sample as a capture, in the format of the options,
// and returns its truth, nil for a stream. An unknown name is an error.
func Write(out io.Writer, name string, seed uint64, opt capture.WriterOptions) (*Truth, error) {
	if slices.ContainsFunc(List(), func(s Sample) bool { return s.Name == name && s.Packets > 0 }) {
		return nil, WriteStream(out, name, 0, seed, opt)
	}
	sc, ok := Find(name)
	if !ok {
		return nil, fmt.Errorf("sample %q is not known; `squall sample` lists them", name)
	}
	return WriteScenario(out, sc, seed, opt)
}

// WriteStream writes a stream for measuring, of some packets or, with 0, of as
// many as it is listed with.
func WriteStream(out io.Writer, name string, packets int64, seed uint64, opt capture.WriterOptions) error {
	for _, s := range streams {
		if s.name == name {
			if packets <= 0 {
				packets = s.packets
			}
			_, err := write(out, opt, func(emit func(*capture.Packet)) (*Truth, error) {
				s.emit(packets, seed, emit)
				return nil, nil
			})
			return err
		}
	}
	return fmt.Errorf("stream %q is not known", name)
}

// WriteScenario writes a scenario, perhaps a changed one, as one capture.
func WriteScenario(out io.Writer, sc Scenario, seed uint64, opt capture.WriterOptions) (*Truth, error) {
	return write(out, opt, func(emit func(*capture.Packet)) (*Truth, error) { return Simulate(sc, seed, emit) })
}

func write(out io.Writer, opt capture.WriterOptions, run func(emit func(*capture.Packet)) (*Truth, error)) (*Truth, error) {
	w, err := capture.NewWriter(out, opt)
	if err != nil {
		return nil, err
	}
	var failed error
	truth, err := run(func(p *capture.Packet) {
		if failed == nil {
			failed = w.WritePacket(p, "")
		}
	})
	if err == nil {
		err = failed
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return truth, err
}

// WritePieces writes a scenario as sc.Pieces captures of equal time; create
// opens the one of a number from 0, and the numbers are shuffled, so that the
// order of the names is not that of the packets.
func WritePieces(sc Scenario, seed uint64, opt capture.WriterOptions, create func(i int) (io.WriteCloser, error)) (*Truth, error) {
	n := max(sc.Pieces, 1)
	order := rand.New(rand.NewPCG(seed, 0x24)).Perm(n)
	files := make([]io.WriteCloser, n)
	writers := make([]*capture.Writer, n)
	defer func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}()
	var err error
	for i := range files {
		if files[i], err = create(order[i]); err != nil {
			return nil, err
		}
		if writers[i], err = capture.NewWriter(files[i], opt); err != nil {
			return nil, err
		}
	}
	var failed error
	truth, err := Simulate(sc, seed, func(p *capture.Packet) {
		i := (p.Time - Epoch) / (int64(sc.Duration)/int64(n) + 1)
		if failed == nil {
			failed = writers[min(max(i, 0), int64(n-1))].WritePacket(p, "")
		}
	})
	if err == nil {
		err = failed
	}
	for i := range files {
		cerr := writers[i].Close()
		if ferr := files[i].Close(); cerr == nil {
			cerr = ferr
		}
		files[i] = nil
		if err == nil {
			err = cerr
		}
	}
	return truth, err
}
