package attempt

import (
	"strings"
	"sync"

	"squall/dissect"
)

// maxNames bounds the strings of one analysis: a hostile capture may carry a
// new identity in each packet. 4 Mi strings of up to maxNameLen bytes.
const (
	maxNames   = 1 << 22
	maxNameLen = 256
)

// Names interns the strings of records. It is safe for concurrent use; engines
// keep a small cache before it, so that its lock is not on the hot path.
type Names struct {
	mu      sync.RWMutex
	index   []Name          // by hash, a power of two, at most half full; 0 = free
	list    slab[string]    // by Name; the text lies in rooms
	room    strings.Builder `frozen:"-"` // for the next ones
	refused int64
}

const (
	leastIndex = 1 << 6
	roomBytes  = 16 << 10
)

// NewNames returns an interner that holds only the empty string, Name 0.
func NewNames() *Names {
	n := &Names{index: make([]Name, leastIndex)}
	n.list.take()
	return n
}

// find gives where the index of b is, or would be.
func (n *Names) find(b []byte) *Name {
	mask := uint64(len(n.index) - 1)
	for i := dissect.Hash64(9, b); ; i++ {
		if at := &n.index[i&mask]; *at == 0 || *n.list.at(int32(*at)) == string(b) {
			return at
		}
	}
}

// Intern returns the index of b, which it copies. Strings over 256 bytes are
// cut. When the interner is full it returns 0, and Refused counts it.
func (n *Names) Intern(b []byte) Name {
	if len(b) == 0 {
		return 0
	}
	if len(b) > maxNameLen {
		b = b[:maxNameLen]
	}
	n.mu.RLock()
	id := *n.find(b)
	n.mu.RUnlock()
	if id != 0 {
		return id
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.find(b)
	if *at != 0 {
		return *at
	}
	if n.list.n >= maxNames {
		n.refused++
		return 0
	}
	if 2*int(n.list.n) >= len(n.index) {
		n.grow()
		at = n.find(b)
	}
	id = Name(n.list.take())
	*n.list.at(int32(id)) = n.keep(b)
	*at = id
	return id
}

// keep copies b to where many lie together.
func (n *Names) keep(b []byte) string {
	if n.room.Len()+len(b) > n.room.Cap() {
		n.room.Reset()
		n.room.Grow(roomBytes)
	}
	from := n.room.Len()
	n.room.Write(b)
	return n.room.String()[from:]
}

func (n *Names) grow() {
	n.index = make([]Name, 2*len(n.index))
	for id := range n.list.n {
		if id != 0 {
			*n.find([]byte(*n.list.at(id))) = Name(id)
		}
	}
}

// String is the inverse of Intern; an index that was never given is empty.
func (n *Names) String(id Name) string {
	if id == 0 {
		return "" // what most records say, without the lock
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if id >= Name(n.list.n) {
		return ""
	}
	return *n.list.at(int32(id))
}

// Len is how many strings there are.
func (n *Names) Len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return int(n.list.n)
}

// Refused counts the strings that found the interner full.
func (n *Names) Refused() int64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.refused
}

// all are the strings by Name.
func (n *Names) all() []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := make([]string, n.list.n)
	for i := range list {
		list[i] = *n.list.at(int32(i))
	}
	return list
}
