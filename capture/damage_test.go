package capture_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squall/capture"
)

// TestDamage: whatever is done to a file, it gives what stands before, and says
// what is wrong, or is refused with the reason.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	packets := random(200, 3)
	plain := func(ending string) []byte {
		path := filepath.Join(dir, "whole"+ending)
		write(t, path, packets)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	put := func(b []byte, at int, v uint32) []byte {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	pcap, gz, zst := plain(".pcap"), plain(".pcap.gz"), plain(".pcap.zst")
	half := 24 // where the 101st record begins
	for range 100 {
		half += 16 + int(binary.LittleEndian.Uint32(pcap[half+8:]))
	}
	skippable := []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00pzst")
	for i, c := range []struct {
		what   string
		b      []byte
		frames int64  // that are read
		says   string // the damage, or the error; empty = all is well
		tail   bool
	}{
		{"a whole file", pcap, 200, "", false},
		{"zeros behind the last record", join(pcap, make([]byte, 4096)), 200, "zeros where a record should begin", false},
		{"zeros in the middle", join(pcap[:half], make([]byte, 4096), pcap[half:]), 100, "zeros where", false},
		{"a length that leads out of the file", put(pcap, half+8, 300000), 100, "claims 300000 captured bytes", false},
		{"the same, of a cut record", put(pcap[:half+20], half+12, 300000), 100, "20 bytes into", true},
		{"gzip without its last 8 bytes", gz[:len(gz)-8], 200, "the gzip stream is cut, 0 bytes into a record", true},
		{"gzip without its last byte", gz[:len(gz)-1], 200, "the gzip stream is cut", true},
		{"gzip of 20 bytes", gz[:20], 0, "nothing in it can be unpacked: gzip: unexpected EOF", false},
		{"gzip with another sum", put(gz, len(gz)-8, 1), 200, "gzip: invalid checksum", false},
		{"zstd behind a skippable frame", join(skippable, zst), 200, "", false},
		{"zstd behind two of them", join(skippable, skippable, zst), 200, "", false},
		{"a skippable frame that is cut", join(zst, skippable[:9]), 200, "the zstd stream is cut", true},
		{"zstd and 4 bytes of another frame", join(zst, zst[:4]), 200, "the zstd stream is cut", true},
		{"zstd of 4 bytes", zst[:4], 0, "nothing in it can be unpacked: zstd: unexpected EOF", false},
		{"zstd of 20 bytes", zst[:20], 0, "nothing in it can be unpacked: zstd: unexpected EOF", false},
		{"nothing", nil, 0, "0 bytes", false},
		{"zstd with a window of terabytes", join([]byte("\x28\xb5\x2f\xfd\x00\xf8"), zst[6:]), 0, "window size exceeded", false},
	} {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, c.b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, files, err := readAll(t, []string{path}, nil)
		if err != nil {
			if c.frames > 0 || c.says == "" || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		d := files[0].Damage
		if d == nil {
			d = &capture.Damage{}
		} else if d.Frame != c.frames+1 {
			t.Errorf("%s: damage at frame %d", c.what, d.Frame)
		}
		if int64(len(got)) != c.frames || !strings.Contains(d.Reason, c.says) || d.Tail != c.tail || (c.says == "") != (d.Reason == "") {
			t.Errorf("%s: %d packets, %+v", c.what, len(got), d)
		}
	}
}
