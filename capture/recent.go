package capture

import "encoding/binary"

const (
	recentChunk = 1 << 20
	recentHead  = 8 + 4 + 4 + 4 + 4 + 2 + 2 // of a packet in a chunk
)

// Recent keeps the packets of the last while in bounded memory: the oldest go
// when there is no room, or when they are older than they have to be. Its
// chunks are used again, so that it does not grow.
type Recent struct {
	most   int   // chunks
	length int64 // ns
	chunks []recentPart
	free   [][]byte
	Lost   int64 // packets that went before their time, for lack of room
}

type recentPart struct {
	data        []byte
	first, last int64
	n           int64
}

// NewRecent keeps packets for length ns, in at most so many bytes.
func NewRecent(length int64, bytes int) *Recent {
	return &Recent{length: length, most: max(bytes/recentChunk, 2)}
}

// Add takes a copy of a packet.
func (r *Recent) Add(p *Packet) {
	if len(p.Data)+recentHead > recentChunk {
		return // no record is that long
	}
	for len(r.chunks) > 1 && r.chunks[1].first < p.Time-r.length {
		r.drop()
	}
	if n := len(r.chunks); n == 0 || len(r.chunks[n-1].data)+recentHead+len(p.Data) > recentChunk {
		if n == r.most {
			r.Lost += r.chunks[0].n
			r.drop()
		}
		c := recentPart{first: p.Time, last: p.Time}
		if k := len(r.free); k > 0 {
			c.data, r.free = r.free[k-1][:0], r.free[:k-1]
		} else {
			c.data = make([]byte, 0, recentChunk)
		}
		r.chunks = append(r.chunks, c)
	}
	c := &r.chunks[len(r.chunks)-1]
	b := binary.LittleEndian.AppendUint64(c.data, uint64(p.Time))
	b = le32(le32(le32(le32(b, uint32(len(p.Data))), uint32(p.OrigLen)), p.Flags), p.File)
	b = append(le16(le16(b, uint16(p.Link)), p.Iface), p.Data...)
	c.data, c.n = b, c.n+1
	c.first, c.last = min(c.first, p.Time), max(c.last, p.Time)
}

func (r *Recent) drop() {
	r.free = append(r.free, r.chunks[0].data)
	copy(r.chunks, r.chunks[1:])
	r.chunks = r.chunks[:len(r.chunks)-1]
}

// Begin is the time of the oldest packet, 0 = there is none.
func (r *Recent) Begin() int64 {
	if len(r.chunks) == 0 {
		return 0
	}
	return r.chunks[0].first
}

// Take gives the packets from a time on, in the order they came, and forgets
// all. The packet and its data are valid during the call.
func (r *Recent) Take(from int64, each func(*Packet) error) error {
	defer func() {
		for len(r.chunks) > 0 {
			r.drop()
		}
	}()
	for _, c := range r.chunks {
		if c.last < from {
			continue
		}
		for b := c.data; len(b) > 0; {
			n := binary.LittleEndian.Uint32(b[8:])
			p := Packet{Time: int64(binary.LittleEndian.Uint64(b)), OrigLen: int(binary.LittleEndian.Uint32(b[12:])), Flags: binary.LittleEndian.Uint32(b[16:]),
				File: binary.LittleEndian.Uint32(b[20:]), Link: LinkType(binary.LittleEndian.Uint16(b[24:])), Iface: binary.LittleEndian.Uint16(b[26:]),
				Data: b[recentHead : recentHead+n : recentHead+n]}
			b = b[recentHead+n:]
			if p.Time < from {
				continue
			}
			if err := each(&p); err != nil {
				return err
			}
		}
	}
	return nil
}
