package attempt

import "sync"

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
	index   map[string]Name
	list    []string
	refused int64
}

// NewNames returns an interner that holds only the empty string, Name 0.
func NewNames() *Names {
	return &Names{index: map[string]Name{}, list: []string{""}}
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
	id, ok := n.index[string(b)]
	n.mu.RUnlock()
	if ok {
		return id
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if id, ok = n.index[string(b)]; ok {
		return id
	}
	if len(n.list) >= maxNames {
		n.refused++
		return 0
	}
	s := string(b)
	id = Name(len(n.list))
	n.list = append(n.list, s)
	n.index[s] = id
	return id
}

// String is the inverse of Intern; an index that was never given is empty.
func (n *Names) String(id Name) string {
	if id == 0 {
		return "" // what most records say, without the lock
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if int(id) >= len(n.list) {
		return ""
	}
	return n.list[id]
}

// Len is how many strings there are.
func (n *Names) Len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.list)
}

// Refused counts the strings that found the interner full.
func (n *Names) Refused() int64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.refused
}
