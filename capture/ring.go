package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RingOptions say when a Ring begins another file, and how many it keeps. The
// zero value is one file without end.
type RingOptions struct {
	Writer   WriterOptions
	FileSize int64         // bytes after which another file begins
	Duration time.Duration // of a file, from its first packet
	Interval time.Duration // another file begins at whole multiples of this since the epoch: on the hour, on the minute
	Packets  int64         // of a file
	Files    int           // the oldest file goes when there are more; 0 = all are kept
	// Owner, when not nil, is who gets the files: user and group id.
	Owner *[2]int
	// Statistics gives the counters that the end of each file holds; may be nil.
	Statistics func() []InterfaceStatistics
	// Say is told what happens to files; may be nil.
	Say func(format string, args ...any)
}

// many says that there is to be more than one file.
func (o *RingOptions) many() bool {
	return o.FileSize > 0 || o.Duration > 0 || o.Interval > 0 || o.Packets > 0
}

// Ring writes packets to a file, or to a row of files of which the oldest give
// way. Their names are those of tshark, with the time in UTC:
// NAME_00001_20060102150405.pcapng. Files that an earlier Ring of the same name
// left count among those that are kept. Time is that of the packets.
type Ring struct {
	path    string
	opt     RingOptions
	w       *Writer
	name    string // of the file in hand
	files   []string
	number  int
	packets int64
	first   int64 // time that the file begins with
	next    int64 // time from which it is over
	Begun   int   // files that were begun
}

// ErrDiskFull is the end of a Ring that has no older file to give up.
var ErrDiskFull = errors.New("the disk is full")

// NewRing opens the first file. A directory that cannot be written to is said
// now, not when the first file is full.
func NewRing(path string, opt RingOptions) (*Ring, error) {
	r := &Ring{path: path, opt: opt}
	if !opt.many() {
		if opt.Files > 0 {
			return nil, errors.New("files: needs filesize:, duration:, interval: or packets: beside it")
		}
		return r, r.open(path)
	}
	r.adopt()
	base, _ := r.split()
	probe, err := os.CreateTemp(filepath.Dir(base), ".squall-*")
	if err != nil {
		return nil, err
	}
	probe.Close()
	return r, os.Remove(probe.Name())
}

// split takes the name apart before .pcapng, .pcap, .zst and the like.
func (r *Ring) split() (base, ending string) {
	dir, name := filepath.Split(r.path)
	if i := strings.IndexByte(name, '.'); i > 0 {
		name, ending = name[:i], name[i:]
	}
	return dir + name, ending
}

// adopt counts the files of an earlier run, so that a capture that is started
// again and again fills no disk.
func (r *Ring) adopt() {
	base, ending := r.split()
	name := regexp.MustCompile(`^` + regexp.QuoteMeta(filepath.Base(base)) + `_([0-9]{5,})_[0-9]{14}` + regexp.QuoteMeta(ending) + `$`)
	entries, err := os.ReadDir(filepath.Dir(base))
	if err != nil {
		return // creating a file says it better
	}
	type old struct {
		n    int
		path string
	}
	var found []old
	for _, e := range entries {
		if m := name.FindStringSubmatch(e.Name()); m != nil && e.Type().IsRegular() {
			n, _ := strconv.Atoi(m[1])
			found = append(found, old{n, filepath.Join(filepath.Dir(base), e.Name())})
		}
	}
	slices.SortFunc(found, func(a, b old) int { return a.n - b.n })
	for _, f := range found {
		r.files = append(r.files, f.path)
		r.number = max(r.number, f.n)
	}
	if len(found) > 0 {
		r.say("%d files of an earlier capture of this name are there and belong to the ring", len(found))
	}
}

func (r *Ring) say(format string, args ...any) {
	if r.opt.Say != nil {
		r.opt.Say(format, args...)
	}
}

func (r *Ring) open(path string) error {
	w, err := Create(path, r.opt.Writer)
	if err != nil {
		return err
	}
	if r.opt.Owner != nil && os.Geteuid() == 0 {
		if err := w.file.Chown(r.opt.Owner[0], r.opt.Owner[1]); err != nil {
			w.Close()
			return err
		}
	}
	r.w, r.name, r.packets = w, path, 0
	r.Begun++
	return nil
}

// WritePacket writes one packet, beginning another file first when it is time.
func (r *Ring) WritePacket(p *Packet, comment string) error {
	if r.opt.many() {
		if err := r.turn(p.Time); err != nil {
			return err
		}
	}
	r.packets++
	return r.retry(r.w.WritePacket(p, comment))
}

// turn begins another file when the one in hand is over.
func (r *Ring) turn(t int64) error {
	if r.w != nil {
		// A clock that is set back by more than a moment ends a file, too: it
		// would else last until the old time comes again.
		over := r.next > 0 && (t >= r.next || t < r.first-60e9)
		over = over || r.opt.Packets > 0 && r.packets >= r.opt.Packets
		over = over || r.opt.FileSize > 0 && r.packets > 0 && r.full()
		if !over {
			return nil
		}
		if err := r.finish(); err != nil {
			return err
		}
	}
	base, ending := r.split()
	r.number++
	path := fmt.Sprintf("%s_%05d_%s%s", base, r.number, time.Unix(0, t).UTC().Format("20060102150405"), ending)
	for {
		err := r.open(path)
		if err == nil {
			break
		}
		if !noSpace(err) || !r.drop("the disk is full") {
			return err
		}
	}
	r.files = append(r.files, path)
	for r.opt.Files > 0 && len(r.files) > r.opt.Files {
		if !r.drop("") {
			break
		}
	}
	r.first, r.next = t, 0
	if r.opt.Duration > 0 {
		r.next = t + int64(r.opt.Duration)
	}
	if i := int64(r.opt.Interval); i > 0 {
		if at := (t/i + 1) * i; r.next == 0 || at < r.next {
			r.next = at
		}
		r.first = t / i * i
	}
	return nil
}

// full says whether the file in hand is as large as files may be. Of a
// compressed one only what is written counts, which is known a frame later.
func (r *Ring) full() bool {
	if r.w.z != nil {
		return r.w.size >= r.opt.FileSize
	}
	return r.w.Size() >= r.opt.FileSize
}

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// drop removes the oldest file but the one in hand.
func (r *Ring) drop(why string) bool {
	if len(r.files) == 0 || r.files[0] == r.name && r.w != nil {
		return false
	}
	if err := os.Remove(r.files[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.say("%v", err)
		r.files = r.files[1:] // it is somebody else's now
		return false
	}
	if why != "" {
		r.say("%s: removed %s", why, r.files[0])
	}
	r.files = r.files[1:]
	return true
}

// retry gives up older files until the disk has room.
func (r *Ring) retry(err error) error {
	for err != nil && noSpace(err) {
		if !r.drop("the disk is full") {
			return fmt.Errorf("%s: %w: %w", r.name, ErrDiskFull, err)
		}
		err = r.w.Flush()
	}
	return err
}

// Flush writes out what is waiting.
func (r *Ring) Flush() error {
	if r.w == nil {
		return nil
	}
	return r.retry(r.w.Flush())
}

// finish ends the file in hand.
func (r *Ring) finish() error {
	if r.w == nil {
		return nil
	}
	var err error
	if r.opt.Statistics != nil {
		for _, s := range r.opt.Statistics() {
			if err = r.retry(r.w.WriteStatistics(&s)); err != nil {
				break
			}
		}
	}
	if !r.w.begun {
		r.w.begin(LinkEthernet)
	}
	if err == nil {
		err = r.retry(r.w.Flush())
	}
	if err != nil {
		r.w.raw = r.w.raw[:0] // it was said; closing must not fail for it again
	}
	if cerr := r.w.Close(); err == nil {
		err = cerr
	}
	r.w = nil
	return err
}

// Close ends the last file.
func (r *Ring) Close() error { return r.finish() }

// ParseRing reads the words of tshark's -b into o: filesize:KB, duration:SECONDS,
// interval:SECONDS, files:N, packets:N. A unit may follow: filesize:100MB,
// duration:1h.
func (o *RingOptions) ParseRing(text string) error {
	word, value, ok := strings.Cut(text, ":")
	if !ok {
		return fmt.Errorf("%q: want WORD:VALUE, as filesize:100000, duration:3600, interval:3600, files:24, packets:1000000", text)
	}
	fail := func(want string) error { return fmt.Errorf("%s:%s: want %s", word, value, want) }
	n, err := strconv.ParseInt(value, 10, 64)
	number := err == nil && n > 0
	span := func(to *time.Duration) error {
		d, err := time.ParseDuration(value)
		switch {
		case number && n < 1<<30:
			d = time.Duration(n) * time.Second
		case number || err != nil || d < time.Second:
			return fail("seconds, or a time such as 90s or 1h")
		}
		*to = d
		return nil
	}
	switch word {
	case "filesize":
		factor := int64(1000)
		if !number {
			digits := strings.TrimRight(value, "kKMGB")
			f, known := map[string]int64{"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}[value[len(digits):]]
			if n, err = strconv.ParseInt(digits, 10, 64); err != nil || !known || n < 1 {
				return fail("kilobytes, or a size such as 100MB")
			}
			factor = f
		}
		if n > 1<<50/factor {
			return fail("less than a petabyte")
		}
		o.FileSize = n * factor
	case "duration":
		return span(&o.Duration)
	case "interval":
		return span(&o.Interval)
	case "files":
		if !number || n > 1e6 {
			return fail("a number of files from 1 to 1000000")
		}
		o.Files = int(n)
	case "packets":
		if !number {
			return fail("a number of packets")
		}
		o.Packets = n
	default:
		return fmt.Errorf("%q: there are filesize, duration, interval, files and packets", word)
	}
	return nil
}
