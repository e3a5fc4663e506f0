package storm

import "slices"

// table has a value for each number: open addressing, at most three quarters
// full, so that what is asked for lies in one cache line or two. Every attempt
// of a storm asks a score of them; a map costs several times as much. The zero
// value is empty and takes one word.
type table[V any] struct{ in *entries[V] }

type entries[V any] struct {
	list []entry[V] // a power of two
	n    int
}

type entry[V any] struct {
	tag   uint64 // the number's, 0 = free
	value V
}

// tagOf a number, which is that of a time or a bucket: the highest bit is free.
func tagOf(number int64) uint64 { return uint64(number)<<1 | 1 }

func (e *entry[V]) number() int64 { return int64(e.tag) >> 1 }

// entry is the one of a number, or the free one where it would be.
func (t *entries[V]) entry(number int64) *entry[V] {
	mask, tag := uint64(len(t.list)-1), tagOf(number)
	for i := uint64(number) * 0x9e3779b97f4a7c15 >> 32; ; i++ {
		if e := &t.list[i&mask]; e.tag == 0 || e.tag == tag {
			return e
		}
	}
}

// touch has the memory of a number fetched, and gives what nobody needs to know:
// who touches all that it is about to ask for waits for it once.
func (t table[V]) touch(number int64) uint64 {
	if t.in == nil {
		return 0
	}
	return t.in.list[uint64(number)*0x9e3779b97f4a7c15>>32&uint64(len(t.in.list)-1)].tag
}

// get gives the value of a number, the zero value where there is none.
func (t table[V]) get(number int64) (v V) {
	if t.in == nil {
		return v
	}
	return t.in.entry(number).value
}

// at gives the value of a number to be changed, zero when it is new; the pointer
// is good until the next call.
func (t *table[V]) at(number int64) (v *V, made bool) {
	if t.in == nil {
		t.in = &entries[V]{list: make([]entry[V], 2)}
	}
	e := t.in.entry(number)
	if e.tag != 0 {
		return &e.value, false
	}
	if (t.in.n+1)*4 > len(t.in.list)*3 {
		old := t.in.list
		t.in.list = make([]entry[V], 2*len(old))
		for i := range old {
			if old[i].tag != 0 {
				*t.in.entry(old[i].number()) = old[i]
			}
		}
		e = t.in.entry(number)
	}
	t.in.n++
	e.tag = tagOf(number)
	return &e.value, true
}

// len is how many numbers have a value.
func (t table[V]) len() int {
	if t.in == nil {
		return 0
	}
	return t.in.n
}

// numbers are those with a value, in order.
func (t table[V]) numbers() (list []int64) {
	t.each(func(number int64, _ *V) { list = append(list, number) })
	slices.Sort(list)
	return list
}

// each visits the values in no particular order.
func (t table[V]) each(visit func(number int64, v *V)) {
	if t.in == nil {
		return
	}
	for i := range t.in.list {
		if e := &t.in.list[i]; e.tag != 0 {
			visit(e.number(), &e.value)
		}
	}
}

// tally counts by number, as many numbers as follow each other in a cache line: what
// is counted for a storm lies far apart, and is far more than a processor holds next
// to itself. Of each count the line has the lower eight bits. The zero value is empty.
type tally struct {
	lines   table[[tallyRun]uint8]
	carries table[int64] // of counts over 255, in units of 256
}

const tallyRun = 56

// runOf is the line that a number lies in, and where.
func runOf(number int64) (run, i int64) {
	if run, i = number/tallyRun, number%tallyRun; i < 0 {
		run, i = run-1, i+tallyRun
	}
	return run, i
}

// add counts v, and says whether nothing was counted for the number before.
func (t *tally) add(number, v int64) (first bool) {
	run, i := runOf(number)
	line, _ := t.lines.at(run)
	was := line[i]
	sum := int64(was) + v
	line[i] = uint8(sum)
	first = was == 0 && t.carries.get(number) == 0
	if sum > 255 {
		more, _ := t.carries.at(number)
		*more += sum >> 8
	}
	return first
}

// touch has the memory of a number fetched.
func (t *tally) touch(number int64) uint64 {
	run, _ := runOf(number)
	return t.lines.touch(run)
}

// each visits the numbers that something was counted for, in order.
func (t *tally) each(visit func(number, v int64)) {
	for _, run := range t.lines.numbers() {
		for i, low := range t.lines.get(run) {
			number := run*tallyRun + int64(i)
			if v := t.carries.get(number)<<8 + int64(low); v != 0 {
				visit(number, v)
			}
		}
	}
}

func (t *tally) merge(o *tally) { o.each(func(number, v int64) { t.add(number, v) }) }
