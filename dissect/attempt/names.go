package attempt

import (
	"strings"
	"sync"

	"squall/dissect"
)

const (
	// MaxNames is how many names of clients are kept, and how many versions, server
	// names and fingerprints: a hostile capture may carry a new one in each packet.
	// Some 60 bytes each.
	MaxNames   = 1 << 19
	maxNameLen = 256
	// maxWords bounds the words of squall itself, of which there are some hundreds.
	maxWords = 1 << 16
)

// Names interns the strings of records. What is said in packets may be too much to
// keep: then the names go whose hash lies over a falling threshold, the same ones
// wherever and in whatever order they were said. It is safe for concurrent use;
// engines keep a small cache before it, so that its lock is not on the hot path.
type Names struct {
	mu sync.RWMutex
	of [numKinds]strung
}

// kind of a name: its highest bits.
type kind uint8

const (
	word kind = iota // of squall: protocols, operations, rungs
	said             // versions, server names, fingerprints
	who              // clients
	numKinds
	kindShift = 30
)

func (id Name) kind() kind { return min(kind(id>>kindShift), numKinds-1) }

// strung are the strings of a kind.
type strung struct {
	most  int
	kept  int
	halve uint8           // names are kept whose hash has so many zeros first
	index []Name          // by hash, a power of two, at most half full; 0 = free
	list  slab[string]    // by Name, without its kind; the text lies in rooms
	room  strings.Builder `frozen:"-"` // for the next ones
}

const (
	leastIndex = 1 << 6
	roomBytes  = 16 << 10
)

// NewNames returns an interner that keeps so many names of a kind, 0 = MaxNames, and
// holds only the empty string, Name 0.
func NewNames(most int) *Names {
	if most <= 0 {
		most = MaxNames
	}
	n := &Names{}
	for k := range n.of {
		s := &n.of[k]
		s.most, s.index = most, make([]Name, leastIndex)
		s.list.take()
	}
	n.of[word].most = maxWords
	return n
}

func hashOfName(b []byte) uint64 { return dissect.Hash64(9, b) }

// over reports a name that is not kept.
func (s *strung) over(hash uint64) bool { return hash>>(64-s.halve) != 0 }

// find gives where the index of b is, or would be.
func (s *strung) find(hash uint64, b []byte) *Name {
	mask := uint64(len(s.index) - 1)
	for i := hash; ; i++ {
		if at := &s.index[i&mask]; *at == 0 || *s.list.at(int32(*at)) == string(b) {
			return at
		}
	}
}

// Intern returns the index of a word of squall, which it copies.
func (n *Names) Intern(b []byte) Name { return n.intern(word, b) }

// Said is the same for a version, a server name or a fingerprint.
func (n *Names) Said(b []byte) Name { return n.intern(said, b) }

// Client is the same for the name of a client.
func (n *Names) Client(b []byte) Name { return n.intern(who, b) }

// intern cuts strings over 256 bytes. 0: it is empty, or one that is not kept.
func (n *Names) intern(k kind, b []byte) Name {
	if len(b) == 0 {
		return 0
	}
	if len(b) > maxNameLen {
		b = b[:maxNameLen]
	}
	hash, s := hashOfName(b), &n.of[k]
	n.mu.RLock()
	id, over := *s.find(hash, b), s.over(hash)
	n.mu.RUnlock()
	switch {
	case over:
		return 0
	case id != 0:
		return id | Name(k)<<kindShift
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for ; s.kept >= s.most; s.drop(s.halve + 1) {
		if k == word || s.over(hash) || *s.find(hash, b) != 0 {
			break
		}
	}
	if id = *s.find(hash, b); id == 0 && !s.over(hash) && s.kept < s.most {
		id = s.add(hash, b)
	}
	if id == 0 {
		return 0
	}
	return id | Name(k)<<kindShift
}

// add takes a name that is new.
func (s *strung) add(hash uint64, b []byte) Name {
	if 2*(s.kept+1) > len(s.index) {
		s.reindex(2 * len(s.index))
	}
	id := Name(s.list.take())
	*s.list.at(int32(id)) = s.keep(b)
	*s.find(hash, b) = id
	s.kept++
	return id
}

// keep copies b to where many lie together.
func (s *strung) keep(b []byte) string {
	if s.room.Len()+len(b) > s.room.Cap() {
		s.room.Reset()
		s.room.Grow(roomBytes)
	}
	from := s.room.Len()
	s.room.Write(b)
	return s.room.String()[from:]
}

// drop leaves the names whose hash has so many zeros first. Those that are left go
// to other rooms, for the old ones hold them all.
func (s *strung) drop(halve uint8) {
	s.halve = halve
	s.kept = 0
	for id := range s.list.n {
		text := s.list.at(id)
		switch b := []byte(*text); {
		case len(b) == 0:
		case s.over(hashOfName(b)):
			*text = ""
		default:
			*text = s.keep(b)
			s.kept++
		}
	}
	s.reindex(len(s.index))
}

func (s *strung) reindex(size int) {
	s.index = make([]Name, size)
	for id := range s.list.n {
		if b := []byte(*s.list.at(id)); len(b) > 0 {
			*s.find(hashOfName(b), b) = Name(id)
		}
	}
}

// String is the inverse of Intern, Said and Client; an index that was never given is
// empty, and so is one whose name is not kept any more.
func (n *Names) String(id Name) string {
	if id == 0 {
		return "" // what most records say, without the lock
	}
	s, i := &n.of[id.kind()], id&(1<<kindShift-1)
	n.mu.RLock()
	defer n.mu.RUnlock()
	if i >= Name(s.list.n) {
		return ""
	}
	return *s.list.at(int32(i))
}

// forget takes out of a record the names that are not kept any more, as if they had not
// been kept when they were said.
func (n *Names) forget(r *Record) {
	for _, id := range r.names() {
		if n.String(*id) == "" {
			*id = 0
		}
	}
}

// Len is how many strings there are.
func (n *Names) Len() (all int) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for k := range n.of {
		all += int(n.of[k].list.n)
	}
	return all
}

// OneIn is of how many names of clients one is kept, and of how many versions,
// server names and fingerprints; 1 = all are.
func (n *Names) OneIn() (clients, versions int64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return 1 << n.of[who].halve, 1 << n.of[said].halve
}

// again interns what other names have under an index.
func (n *Names) again(other *Names, id Name) Name {
	return n.intern(id.kind(), []byte(other.String(id)))
}

// all are the strings of a kind by Name without it.
func (n *Names) all(k kind) []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := make([]string, n.of[k].list.n)
	for i := range list {
		list[i] = *n.of[k].list.at(int32(i))
	}
	return list
}

// keep drops the names that others had to drop.
func (n *Names) keep(k kind, halve uint8) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := &n.of[k]; halve > s.halve {
		s.drop(halve)
	}
}
