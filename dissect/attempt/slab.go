package attempt

const (
	pageShift = 10
	pageSize  = 1 << pageShift
)

// slab is a growing array whose elements never move: growing it copies
// nothing, and pointers into it stay good.
type slab[T any] struct {
	pages []*[pageSize]T
	n     int32 // elements handed out, free ones included
	free  []int32
}

func (s *slab[T]) at(i int32) *T { return &s.pages[i>>pageShift][i&(pageSize-1)] }

// take gives the index of an element whose content is what its last user left.
func (s *slab[T]) take() int32 {
	if k := len(s.free); k > 0 {
		i := s.free[k-1]
		s.free = s.free[:k-1]
		return i
	}
	if int(s.n) == len(s.pages)*pageSize {
		s.pages = append(s.pages, new([pageSize]T))
	}
	s.n++
	return s.n - 1
}

func (s *slab[T]) put(i int32) { s.free = append(s.free, i) }
