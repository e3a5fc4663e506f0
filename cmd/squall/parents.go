package main

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"strings"

	"squall/capture"
)

// What an extract says of where its packets are from: in the comment of the
// section a line for each capture, in that of each packet the frame.
const (
	parentLine  = "squall parent %d: SHA-256 %s %s"
	parentFrame = "squall parent %d:%d"
)

// parents are the lines of the captures that packets may be taken from. Those of a
// kept directory have their hashes in its manifest, others are hashed now.
func parents(files []capture.FileStats, args []string) (string, error) {
	known := map[string]string{}
	if dir, ok := keptDir(args); ok {
		if c, err := readCustody(dir); err == nil {
			for _, s := range c.Inputs {
				known[s.Name] = s.SHA256
			}
		}
	}
	var out strings.Builder
	for i, f := range files {
		sum := known[f.Path]
		if sum == "" {
			s, err := seal(f.Path, f.Path)
			if err != nil {
				return "", err
			}
			sum = s.SHA256
		}
		fmt.Fprintf(&out, "\n"+parentLine, i+1, sum, f.Path)
	}
	return out.String(), nil
}

func parentOf(p *capture.Packet) string { return fmt.Sprintf(parentFrame, p.File+1, p.Frame) }

type parent struct {
	sum, path string
	frames    map[int64]child // that are in the extract
}

// child is a packet of an extract, by frame and a hash of its time and bytes.
type child struct {
	frame int64
	hash  uint64
}

// verifyExtract compares every packet of an extract with its parent.
func verifyExtract(w io.Writer, path string, files []string) error {
	seed := maphash.MakeSeed()
	// An observer's clock may have been set right: times are not compared, bytes are.
	hash := func(p *capture.Packet) uint64 {
		return maphash.Bytes(seed, p.Data) ^ uint64(p.OrigLen)
	}
	list := map[int]*parent{}
	orphans, packets := 0, int64(0)
	err := capture.Commented(path, func(comment string) {
		for line := range strings.Lines(comment) {
			var n int
			var p parent
			if _, err := fmt.Sscanf(line, "squall parent %d: SHA-256 %s", &n, &p.sum); err == nil {
				_, p.path, _ = strings.Cut(strings.TrimSuffix(line, "\n"), p.sum+" ")
				p.frames = map[int64]child{}
				list[n] = &p
			}
		}
	}, func(p *capture.Packet, comments []string) error {
		packets++
		var file int
		var frame int64
		for _, c := range comments {
			for line := range strings.Lines(c) {
				fmt.Sscanf(line, parentFrame, &file, &frame)
			}
		}
		if of := list[file]; of == nil || frame == 0 {
			orphans++
		} else {
			of.frames[frame] = child{p.Frame, hash(p)}
		}
		return nil
	})
	if err != nil {
		return exitError{exitUsage, err}
	}
	if len(list) == 0 {
		return exitError{exitUsage, fmt.Errorf("%s names no parents: squall extract writes them into pcapng that is not anonymised", path)}
	}
	given := map[string]string{}
	for _, f := range files {
		s, err := seal(f, f)
		if err != nil {
			return exitError{exitUsage, err}
		}
		given[s.SHA256] = f
	}
	bad := orphans
	if orphans > 0 {
		fmt.Fprintf(w, "CHANGED  %d packets name no parent\n", orphans)
	}
	for n := 1; n <= len(list); n++ {
		p := list[n]
		if p == nil || len(p.frames) == 0 {
			continue
		}
		at, named := given[p.sum]
		if !named {
			at = p.path
			if s, err := seal(at, at); err != nil || s.SHA256 != p.sum {
				bad++
				fmt.Fprintf(w, "CHANGED  parent %s: it is not there with the content that it had\n", at)
				continue
			}
		}
		differ, err := p.compare(at, hash)
		if err != nil {
			return exitError{exitFailed, err}
		}
		word := "ok     "
		if differ > 0 {
			word = "CHANGED"
		}
		bad += differ
		fmt.Fprintf(w, "%s  parent %s: %d packets, %d differ\n", word, at, len(p.frames), differ)
	}
	if bad > 0 {
		return exitError{exitFailed, fmt.Errorf("%d of %d packets or their parents are not what they were", bad, packets)}
	}
	return nil
}

// compare counts the packets that are not the frames they name.
func (p *parent) compare(path string, hash func(*capture.Packet) uint64) (differ int, err error) {
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		return 0, err
	}
	defer src.Close()
	differ = len(p.frames)
	err = capture.Each(context.Background(), src, func(b *capture.Batch) error {
		for i := range b.Packets {
			if c, ok := p.frames[b.Packets[i].Frame]; ok && c.hash == hash(&b.Packets[i]) {
				differ--
			}
		}
		return nil
	})
	return differ, err
}
