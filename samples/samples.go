package samples

import (
	"fmt"
	"io"

	"squall/capture"
)

// Sample is a capture that squall carries in itself. It is held as a scenario
// and a seed, not as bytes: simulating one takes less than reading it from a
// disk would be worth.
type Sample struct {
	Name, About string
	Seed        uint64
}

// Streams of packets without the truth of single clients, for measuring.
var streams = []struct {
	name, about string
	packets     int64
	emit        func(packets int64, seed uint64, emit func(*capture.Packet))
}{
	{"bench-dense", "for measuring: 7 million packets, 3.4 million attempts", 7_000_000, Dense},
	{"bench-bulk", "for measuring: 3 million packets of 600 bytes, a storm inside", 3_000_000, Bulk},
}

// List is every sample: the scenarios in their order, then the streams for
// measuring.
func List() (all []Sample) {
	for _, s := range Scenarios() {
		all = append(all, Sample{s.Name, s.About, 1})
	}
	for _, s := range streams {
		all = append(all, Sample{s.name, s.about, 1})
	}
	return all
}

// Write writes the named sample as a capture, in the format of the options,
// and returns its truth, nil for a stream. An unknown name is an error.
func Write(out io.Writer, name string, seed uint64, opt capture.WriterOptions) (*Truth, error) {
	run := func(emit func(*capture.Packet)) (*Truth, error) {
		sc, ok := Find(name)
		if !ok {
			return nil, fmt.Errorf("sample %q is not known; `squall sample` lists them", name)
		}
		return Simulate(sc, seed, emit)
	}
	for _, s := range streams {
		if s.name == name {
			run = func(emit func(*capture.Packet)) (*Truth, error) {
				s.emit(s.packets, seed, emit)
				return nil, nil
			}
		}
	}
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
