package attempt

import (
	"hash/maphash"

	"squall/dissect"
)

// flowIndex finds flows by key: open addressing over 8-byte slots, half of
// the hash and the flow's number, so that a probe stays in one cache line and
// only the flow itself is compared. The seed keeps a hostile capture from
// choosing keys that collide.
type flowIndex struct {
	slots []uint64 // hash << 32 | flow + 1; 0 = free
	n     int
	seed  uint64
}

const firstIndexSlots = 1 << 10

func newFlowIndex() flowIndex {
	return flowIndex{slots: make([]uint64, firstIndexSlots), seed: maphash.String(maphash.MakeSeed(), "flows")}
}

func (x *flowIndex) hash(k *flowKey) uint32 {
	h := dissect.FoldBytes(x.seed, k.a.Addr[:])
	h = dissect.FoldBytes(h, k.b.Addr[:])
	h = dissect.Fold(h, k.net)
	h = dissect.Fold(h, uint64(k.a.Port)<<24|uint64(k.b.Port)<<8|uint64(k.proto))
	return uint32(h >> 32)
}

// find gives the flow of a key, or none; h is the key's hash.
func (x *flowIndex) find(k *flowKey, h uint32, flows *slab[flow]) int32 {
	mask := uint32(len(x.slots) - 1)
	for i := h & mask; x.slots[i] != 0; i = (i + 1) & mask {
		if s := x.slots[i]; uint32(s>>32) == h {
			if fi := int32(uint32(s)) - 1; flows.at(fi).key == *k {
				return fi
			}
		}
	}
	return none
}

// add enters a key that is not there.
func (x *flowIndex) add(h uint32, fi int32) {
	if x.n++; x.n*2 > len(x.slots) {
		old := x.slots
		x.slots = make([]uint64, 2*len(old))
		for _, s := range old {
			if s != 0 {
				x.enter(s)
			}
		}
	}
	x.enter(uint64(h)<<32 | uint64(fi+1))
}

func (x *flowIndex) enter(s uint64) {
	mask := uint32(len(x.slots) - 1)
	i := uint32(s>>32) & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

// remove takes out a key that is there, and closes the gap it leaves.
func (x *flowIndex) remove(h uint32, fi int32) {
	x.n--
	mask := uint32(len(x.slots) - 1)
	i := h & mask
	for uint32(x.slots[i]) != uint32(fi+1) {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; x.slots[j] != 0; j = (j + 1) & mask {
		home := uint32(x.slots[j]>>32) & mask
		if (j-home)&mask >= (j-i)&mask {
			x.slots[i] = x.slots[j]
			i = j
		}
	}
	x.slots[i] = 0
}
