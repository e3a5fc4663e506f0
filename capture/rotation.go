package capture

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names that rotation gives to files. tshark, dumpcap and Ring: a number and a
// time; tcpdump -C: a number behind the ending; tcpdump -G: a time, as strftime
// wrote it; anything else: a number with leading zeros.
var (
	ringName   = regexp.MustCompile(`^(.+)_(\d{5,})_(\d{14})((?:\.\w+)*)$`)
	sizeName   = regexp.MustCompile(`^(.+\.(?:pcap|pcapng|cap|dmp))(\d*)((?:\.(?:gz|zst|lz4|bz2))?)$`)
	timeName   = regexp.MustCompile(`(\d{4})([-_]?)(\d\d)([-_]?)(\d\d)([-_T ]?)(\d\d)([-_:.h]?)(\d\d)([-_:.m]?)(\d\d)?`)
	epochName  = regexp.MustCompile(`(?:^|\D)(1\d{9})(?:\D|$)`)
	numberName = regexp.MustCompile(`^(.*?)(\d{3,})((?:\.\w+)+)$`)
)

// rotated is what the name of a file says of its place in a row of files that
// one program wrote, one after the other.
type rotated struct {
	set    string // the same for all of them
	sure   bool   // only rotation gives such names
	wide   bool   // the number has leading zeros
	number int64  // -1 = the name has none
	at     int64  // seconds; 0 = the name has none
	name   func(number, at int64) string
}

// rotations reads a name; it may fit two ways.
func rotations(path string) (list []rotated) {
	dir, base := filepath.Split(path)
	if m := ringName.FindStringSubmatch(base); m != nil {
		n, _ := strconv.ParseInt(m[2], 10, 64)
		return []rotated{{dir + m[1] + "_#" + m[4], true, true, n, 0, func(n, _ int64) string {
			return fmt.Sprintf("%s%s_%0*d_*%s", dir, m[1], len(m[2]), n, m[4])
		}}}
	}
	if m := timeName.FindStringSubmatchIndex(base); m != nil {
		part := func(i int) int {
			if m[2*i] < 0 {
				return 0
			}
			n, _ := strconv.Atoi(base[m[2*i]:m[2*i+1]])
			return n
		}
		t := time.Date(part(1), time.Month(part(3)), part(5), part(7), part(9), part(11), 0, time.UTC)
		if part(1) > 1980 && part(1) < 2100 && t.Day() == part(5) && int(t.Month()) == part(3) && t.Hour() == part(7) {
			list = append(list, rotated{dir + base[:m[0]] + "#" + base[m[1]:], true, false, -1, t.Unix(), func(_, at int64) string {
				t := time.Unix(at, 0).UTC()
				out := base[:m[0]] + t.Format("2006") + base[m[4]:m[5]] + t.Format("01") + base[m[8]:m[9]] + t.Format("02") + base[m[12]:m[13]] +
					t.Format("15") + base[m[16]:m[17]] + t.Format("04") + base[m[20]:m[21]]
				if m[22] >= 0 {
					out += t.Format("05")
				}
				return dir + out + base[m[1]:]
			}})
		}
	} else if m := epochName.FindStringSubmatchIndex(base); m != nil {
		at, _ := strconv.ParseInt(base[m[2]:m[3]], 10, 64)
		list = append(list, rotated{dir + base[:m[2]] + "#" + base[m[3]:], true, false, -1, at, func(_, at int64) string {
			return dir + base[:m[2]] + strconv.FormatInt(at, 10) + base[m[3]:]
		}})
	}
	if m := sizeName.FindStringSubmatch(base); m != nil {
		n, width := int64(0), 0
		if m[2] != "" {
			n, _ = strconv.ParseInt(m[2], 10, 64)
			width = len(m[2])
		}
		zeros := strings.HasPrefix(m[2], "0")
		if m[2] != "" || len(list) == 0 && numberName.FindString(base) == "" {
			list = append(list, rotated{dir + m[1] + "#" + m[3], m[2] != "", zeros, n, 0, func(n, _ int64) string {
				if !zeros {
					width = 1
				}
				if n == 0 && !zeros {
					return dir + m[1] + m[3]
				}
				return fmt.Sprintf("%s%s%0*d%s", dir, m[1], width, n, m[3])
			}})
			return list
		}
	}
	if m := numberName.FindStringSubmatch(base); m != nil && len(list) == 0 {
		n, err := strconv.ParseInt(m[2], 10, 64)
		if err == nil {
			list = append(list, rotated{fmt.Sprintf("%s%s#%d%s", dir, m[1], len(m[2]), m[3]), false, true, n, 0, func(n, _ int64) string {
				return fmt.Sprintf("%s%s%0*d%s", dir, m[1], len(m[2]), n, m[3])
			}})
		}
	}
	return list
}

// placed is a file in a row.
type placed struct {
	rotated
	file        int
	first, last int64 // last = 0: not known
}

// rows sorts files into rows of at least two, each by time.
func rows(n int, file func(i int) (path string, first, last int64)) (out [][]placed) {
	at := map[string]int{}
	for i := range n {
		path, first, last := file(i)
		for _, r := range rotations(path) {
			key := fmt.Sprintf("%s %t", r.set, r.number >= 0)
			k, ok := at[key]
			if !ok {
				k = len(out)
				at[key] = k
				out = append(out, nil)
			}
			out[k] = append(out[k], placed{r, i, first, last})
		}
	}
	out = slices.DeleteFunc(out, func(row []placed) bool { return len(row) < 2 })
	for _, row := range out {
		slices.SortStableFunc(row, func(a, b placed) int {
			return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.at, b.at), cmp.Compare(a.number, b.number))
		})
	}
	return out
}

// successors tells, by input, when the next file of a rotation begins: the one
// before had ended then.
func (m *merge) successors() map[int]int64 {
	next := map[int]int64{}
	for _, row := range rows(len(m.inputs), func(i int) (string, int64, int64) {
		return m.inputs[i].f.stats.Path, m.inputs[i].first, 0
	}) {
		for i := range len(row) - 1 {
			if row[i].first != 0 && sure(row) {
				next[row[i].file] = row[i+1].first
			}
		}
	}
	return next
}

// sure says that names like these come from rotation alone; the first of
// tcpdump -C has no number.
func sure(row []placed) bool { return slices.ContainsFunc(row, func(p placed) bool { return p.sure }) }

const (
	maxMissing = 100     // names of one hole that are told
	leastRow   = 4       // files in a row from which on it is known how they touch
	leastHole  = 10e9    // ns of silence between two files that is told
	touching   = 2e9     // ns between files that touch
	mostHole   = 1 << 20 // numbers that can be missing at once; more is another row
)

// MarkHoles finds the files that are missing in rows of rotated ones, and where
// such a row is torn in time, and notes both at the file behind.
func MarkHoles(n int, stats func(i int) *FileStats) {
	for i := range n {
		s := stats(i)
		s.Missing, s.MissingCount, s.Hole = nil, 0, 0
	}
	for _, row := range rows(n, func(i int) (string, int64, int64) {
		s := stats(i)
		return s.Path, s.First, max(s.Last, s.Ended)
	}) {
		var idle []placed // without a packet: in no order, but there
		row = slices.DeleteFunc(row, func(p placed) bool {
			if p.first == 0 {
				idle = append(idle, p)
			}
			return p.first == 0
		})
		if len(row) < 2 {
			continue
		}
		if row[0].number >= 0 {
			numbered(row, idle, stats)
		} else {
			timed(row, idle, stats)
		}
		torn(row, idle, stats)
	}
}

func (p *placed) hole(after *placed, stats func(int) *FileStats) {
	if after.last > 0 && p.first > after.last {
		s := stats(p.file)
		s.Hole = max(s.Hole, p.first-after.last)
	}
}

func (p *placed) missing(s *FileStats, name string) {
	if s.MissingCount++; len(s.Missing) < maxMissing {
		s.Missing = append(s.Missing, name)
	}
}

// numbered finds numbers that were left out. Those of a ring that tcpdump -W
// goes round begin anew after the highest.
func numbered(row, idle []placed, stats func(int) *FileStats) {
	there := map[int64]bool{}
	for _, p := range idle {
		there[p.number] = true
	}
	low, high := row[0].number, row[0].number
	falls, name := 0, row[0].name
	for i, p := range row {
		low, high = min(low, p.number), max(high, p.number)
		if i > 0 && p.number < row[i-1].number {
			falls++
		}
		if p.wide {
			name = p.name
		}
	}
	if falls > 1 || !sure(row) && (falls > 0 || len(row) < leastRow) || high-low > mostHole {
		return // not in the order of time: numbers of something else
	}
	for i := 1; i < len(row); i++ {
		a, b := &row[i-1], &row[i]
		s := stats(b.file)
		from := a.number + 1
		upTo := func(end int64) {
			for ; from < end; from++ {
				if !there[from] {
					b.missing(s, name(from, 0))
				}
			}
		}
		if b.number < a.number {
			upTo(high + 1)
			from = low
		}
		upTo(b.number)
		if s.MissingCount > 0 {
			b.hole(a, stats)
		}
	}
}

// timed finds times that were left out, where the rest come at one interval.
func timed(row, idle []placed, stats func(int) *FileStats) {
	count := map[int64]int{}
	var steps []int64
	for i := 1; i < len(row); i++ {
		if d := row[i].at - row[i-1].at; d > 0 {
			steps = append(steps, d)
			count[d]++
		}
	}
	step, most := int64(0), 0
	for d, n := range count {
		if n > most || n == most && d < step {
			step, most = d, n
		}
	}
	if most < 2 || most*2 < len(steps) {
		return
	}
	nth := func(at int64) int64 { return (at - row[0].at + step/2) / step }
	there := map[int64]bool{}
	for _, p := range idle {
		there[nth(p.at)] = true
	}
	for i := 1; i < len(row); i++ {
		a, b := &row[i-1], &row[i]
		lost := (b.at-a.at+step/2)/step - 1
		if lost < 1 || lost > mostHole {
			continue
		}
		s := stats(b.file)
		for k := int64(1); k <= lost; k++ {
			if at := a.at + k*step; !there[nth(at)] {
				b.missing(s, b.name(0, at))
			}
		}
		if s.MissingCount > 0 {
			b.hole(a, stats)
		}
	}
}

// torn finds silences between files that else touch each other. A file without a
// packet says that it was listened.
func torn(row, idle []placed, stats func(int) *FileStats) {
	var between []int64
	for i := 1; i < len(row); i++ {
		if row[i-1].last > 0 {
			between = append(between, row[i].first-row[i-1].last)
		}
	}
	if len(row) < leastRow || len(between) < leastRow-1 {
		return
	}
	slices.Sort(between)
	usual := between[len(between)/2]
	if usual > touching || usual < -touching {
		return
	}
	for i := 1; i < len(row); i++ {
		a, b := &row[i-1], &row[i]
		heard := slices.ContainsFunc(idle, func(p placed) bool {
			return p.number > a.number && p.number < b.number || p.at > a.at && p.at < b.at
		})
		if a.last > 0 && b.first-a.last > max(leastHole, 20*usual) && !heard {
			b.hole(a, stats)
		}
	}
}
