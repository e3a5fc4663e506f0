package capture

import "io"

// memory is a capture that is already in memory.
type memory struct {
	packets []Packet
	stats   FileStats
	last    int64
}

// memoryBatch is how many packets it gives at a time.
const memoryBatch = 4096

// Memory is a source of packets that are there already, a simulated outage say, as
// one input by the name of "memory". The packets and their bytes stay the caller's;
// they are not to be changed while the source is read.
func Memory(packets []Packet) Source {
	return &memory{packets: packets, stats: FileStats{Path: "memory", Drops: -1}}
}

func (m *memory) Next() (*Batch, error) {
	if len(m.packets) == 0 {
		return nil, io.EOF
	}
	n := min(len(m.packets), memoryBatch)
	for i := range m.packets[:n] {
		m.stats.count(&m.packets[i], m.last)
		m.last = m.packets[i].Time
	}
	b := NewBatch(m.packets[:n:n], nil)
	m.packets = m.packets[n:]
	return b, nil
}

func (m *memory) Files() []FileStats { return []FileStats{m.stats} }
func (m *memory) Close() error       { return nil }
