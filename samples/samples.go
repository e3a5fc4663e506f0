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

// List is every sample, in the order of the scenarios.
func List() (all []Sample) {
	for _, s := range Scenarios() {
		all = append(all, Sample{s.Name, s.About, 1})
	}
	return all
}

// Write writes the named sample as a capture, in the format of the options,
// and returns its truth. An unknown name is an error that lists the known ones.
func Write(out io.Writer, name string, seed uint64, opt capture.WriterOptions) (*Truth, error) {
	sc, ok := Find(name)
	if !ok {
		return nil, fmt.Errorf("sample %q: unknown; `squall sample` lists them", name)
	}
	w, err := capture.NewWriter(out, opt)
	if err != nil {
		return nil, err
	}
	var failed error
	truth, err := Simulate(sc, seed, func(p *capture.Packet) {
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
