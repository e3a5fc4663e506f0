package capture_test

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"testing"
	"time"

	"squall/capture"
)

// TestPipe: packets written to a pipe come through while it stays open, and
// Close does not wait for its end.
func TestPipe(t *testing.T) {
	for _, opt := range []capture.WriterOptions{{Format: "pcap"}, {Format: "pcapng"}} {
		want := random(3, 8)
		var whole bytes.Buffer
		w, err := capture.NewWriter(&whole, opt)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if err := w.WritePacket(&want[i], ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, in := io.Pipe()
		go in.Write(whole.Bytes())
		ended := make(chan error, 1)
		go func() {
			src, err := capture.Open([]string{"-"}, capture.Options{Stdin: r})
			if err != nil {
				ended <- err
				return
			}
			for n := 0; n < len(want); {
				b, err := src.Next()
				if err != nil {
					ended <- err
					return
				}
				n += len(b.Packets)
				b.Release()
			}
			ended <- src.Close()
		}()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v", opt.Format, err)
			}
		case <-time.After(20 * time.Second): // only a reader that waits for the end gets here
			t.Errorf("%s: the packets stay in the pipe", opt.Format)
		}
		in.Close()
	}
}

// TestNamedPipes: pipes given by name are read once, however many inputs there
// are, and merged like files.
func TestNamedPipes(t *testing.T) {
	want := random(600, 4)
	var names []string
	for i := range 6 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		name := "/dev/fd/" + strconv.Itoa(int(r.Fd()))
		if _, err := os.Stat(name); err != nil {
			t.Skip("needs /dev/fd, as Linux (proc mounted), macOS and FreeBSD (fdescfs mounted) have it")
		}
		names = append(names, name)
		out, err := capture.NewWriter(w, capture.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for k := i; k < len(want); k += 6 {
				if out.WritePacket(&want[k], "") != nil {
					break
				}
			}
			out.Close()
			w.Close()
		}()
	}
	got, _, err := readAll(t, names, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "six pipes", got, want)
}
