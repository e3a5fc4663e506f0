package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/dissect/taps"
)

// resumeName is the file of a kept directory by which an analysis that was broken
// off goes on. It is gone once the analysis is whole.
const resumeName = "resume.squall"

// keepEvery is how often it is written, and keepShare bounds what that takes of the
// time: a twentieth. keptNow is told of each time; tests set all three.
var (
	keepEvery = time.Minute
	keepShare = time.Duration(20)
	keptNow   = func(path string) {}
)

// brokenOffAt is the first line of that file. The state follows, and a SHA-256 of both.
type brokenOffAt struct {
	Form    int                      `json:"squall_resume"`
	Program string                   `json:"program_sha256"` // another one may have other rules
	Flags   []string                 `json:"flags"`
	Found   *taps.Clocks             `json:"found,omitempty"`
	Set     map[string]capture.Clock `json:"set,omitempty"`
	Inputs  []takenInput             `json:"inputs"`
}

// takenInput is an input by what it was when it was read. Of one that was taken
// whole the content is known.
type takenInput struct {
	sealed
	Time  int64 `json:"modified"`
	Taken int64 `json:"taken"` // packets
}

// resumption takes an analysis up, and keeps how far it has come.
type resumption struct {
	path  string
	say   func(format string, args ...any)
	flags []string
	in    *source

	was    *brokenOffAt // nil = there was none
	from   *pipeline.Kept
	h      *os.File // that it is read from
	goesOn bool

	off    bool // inputs that cannot be read twice, or no room
	files  []capture.FileStats
	sealed map[string]sealed
	last   time.Time
	took   time.Duration
}

// resumption of an analysis that is kept in a directory.
func (s *source) resumption(cmd *cobra.Command) *resumption {
	k := &resumption{path: filepath.Join(s.keepIn, resumeName), in: s, sealed: map[string]sealed{}, last: time.Now()}
	k.say = func(format string, args ...any) {
		if !s.quiet {
			fmt.Fprintf(cmd.ErrOrStderr(), "squall: "+format+"\n", args...)
		}
	}
	for _, w := range s.words(cmd, nil) { // those that change what is made of a packet
		name, path, _ := strings.Cut(w, "=")
		switch name {
		case "--filter", "--hints":
			if s, err := seal(strings.TrimPrefix(path, "@"), ""); err == nil {
				w += " " + s.SHA256
			}
			k.flags = append(k.flags, w)
		case "--after", "--before", "--tz", "--keep-duplicates", "--clock", "--max-flows", "--max-names":
			k.flags = append(k.flags, w)
		}
	}
	if s.shard.Count > 1 {
		k.flags = append(k.flags, "--shard="+shardWords(s.shard))
	}
	if err := k.load(); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.say("%s: %v: everything is read anew", k.path, err)
		}
		k.was, k.from = nil, nil
	}
	return k
}

func (k *resumption) load() error {
	h, err := os.Open(k.path)
	if err != nil {
		return err
	}
	if err := whole(h); err != nil {
		h.Close()
		return err
	}
	in := bufio.NewReaderSize(h, 1<<16) // it is read to its end while another takes its place
	line, err := in.ReadBytes('\n')
	was := &brokenOffAt{}
	if err == nil {
		err = json.Unmarshal(line, was)
	}
	switch {
	case err != nil || was.Form != 1:
		err = errors.New("not of a form that is known")
	case was.Program != program():
		err = errors.New("another squall wrote it")
	case !slices.Equal(was.Flags, k.flags):
		err = fmt.Errorf("it is of an analysis with other flags (%s)", strings.Join(was.Flags, " "))
	default:
		k.from, err = pipeline.Thaw(in)
	}
	if err != nil {
		h.Close()
		return err
	}
	k.was, k.h = was, h
	return nil
}

// whole looks at the checksum at the end of a file, and goes back to its begin.
func whole(h *os.File) error {
	info, err := h.Stat()
	if err != nil {
		return err
	}
	sum := sha256.New()
	if n := info.Size() - sha256.Size; n <= 0 {
		return errors.New("it is cut")
	} else if _, err := io.CopyN(sum, h, n); err != nil {
		return err
	}
	if want, err := io.ReadAll(h); err != nil || !bytes.Equal(want, sum.Sum(nil)) {
		return errors.New("it is damaged")
	}
	_, err = h.Seek(0, io.SeekStart)
	return err
}

// program is the SHA-256 of what is running.
var program = sync.OnceValue(func() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	s, _ := seal(path, path)
	return s.SHA256
})

// marks looks whether the inputs are those that were read. One that has another name
// or another date is known by its content, where that was read whole.
func (k *resumption) marks(files []capture.FileStats) []capture.Mark {
	k.files = files
	for i := range files {
		info, err := os.Stat(files[i].Path)
		k.off = k.off || err != nil || !info.Mode().IsRegular()
	}
	if k.off || k.was == nil {
		return nil
	}
	if len(files) != len(k.was.Inputs) || len(files) != len(k.from.Marks) {
		k.say("%s is of %d files, and there are %d: everything is read anew", k.path, len(k.was.Inputs), len(files))
		return nil
	}
	done, packets := 0, int64(0)
	for i := range files {
		was, m := &k.was.Inputs[i], &k.from.Marks[i]
		now := k.see(i)
		same := now.Name == was.Name && now.Size == was.Size && now.Time == was.Time
		if m.Done != nil {
			if !same {
				s, err := seal(now.Name, now.Name)
				same = err == nil && s.SHA256 == was.SHA256
			}
			m.Done.Path = now.Name
			done++
			k.sealed[now.Name] = was.sealed
		}
		if now.Tap != was.Tap || !same && m.Frames > 0 {
			k.say("%s is not what was read of it before the analysis was broken off: everything is read anew", now.Name)
			return nil
		}
		packets += m.Frames
	}
	k.goesOn = true
	k.say("goes on where it was broken off: %d packets were taken, and %d of %d files are not read again", packets, done, len(files))
	return k.from.Marks
}

// see is what there is of an input without reading it.
func (k *resumption) see(i int) (now takenInput) {
	f := &k.files[i]
	now.Name, now.Tap = f.Path, f.Observer
	if info, err := os.Stat(f.Path); err == nil {
		now.Size, now.Time = info.Size(), info.ModTime().UnixNano()
	}
	return now
}

// keep writes how far the analysis has come, now and then.
func (k *resumption) keep(state *pipeline.State, broken bool) {
	if k.off || !broken && time.Since(k.last) < max(keepEvery, keepShare*k.took) {
		return
	}
	k.h.Close() // what stood in it is taken up by now, or never will be
	begin := time.Now()
	if err := k.write(state); err != nil {
		k.off = true
		os.Remove(k.path)
		k.say("%v: were it broken off, the analysis would have to begin anew", err)
	} else if keptNow(k.path); broken {
		k.say("the same command goes on from here")
	}
	k.last = time.Now()
	k.took = k.last.Sub(begin)
}

func (k *resumption) write(state *pipeline.State) error {
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return err
	}
	head := brokenOffAt{Form: 1, Program: program(), Flags: k.flags, Found: k.in.found, Set: k.in.set}
	marks := state.Marks()
	for i, m := range marks {
		in := k.see(i)
		in.Taken = m.Frames
		if m.Done != nil {
			s, ok := k.sealed[in.Name]
			if !ok {
				var err error
				if s, err = seal(in.Name, in.Name); err != nil {
					return err
				}
				k.sealed[in.Name] = s
			}
			in.SHA256 = s.SHA256
		}
		head.Inputs = append(head.Inputs, in)
	}
	line, err := json.Marshal(head)
	if err != nil {
		return err
	}
	h, err := os.OpenFile(k.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	w := io.MultiWriter(h, sum)
	if _, err = w.Write(append(line, '\n')); err == nil {
		err = state.Write(w, marks)
	}
	if err == nil {
		_, err = h.Write(sum.Sum(nil))
	}
	if err = errors.Join(err, h.Close()); err == nil {
		err = os.Rename(k.path+".new", k.path)
	}
	if err != nil {
		os.Remove(k.path + ".new")
	}
	return err
}
