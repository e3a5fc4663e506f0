package capture

import (
	"bufio"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

// inflateOwn unpacks raw from a block on, and says what is left of it and where its
// other blocks begin.
func inflateOwn(r io.Reader, size int, window []byte, before byte, n uint) (out []byte, left int, blocks []blockAt, err error) {
	in := &position{r: r}
	br := bufio.NewReaderSize(in, size)
	z := &testInflater
	z.start(br, window, before, n)
	z.block = func() {
		blocks = append(blocks, blockAt{len(out) + z.end - z.given, int(in.n) - br.Buffered(), z.nb, bytes.Clone(z.window())})
	}
	for err == nil {
		out = slices.Grow(out, 4096)
		var n int
		n, err = z.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
	}
	rest, _ := io.Copy(io.Discard, br)
	if err == io.EOF {
		err = nil
	}
	return out, int(rest), blocks, err
}

var testInflater inflater // it is large

type blockAt struct {
	plain, at int
	bits      uint
	window    []byte
}

var library = flate.NewReader(nil)

// sameInflated compares with the standard library: bytes, error or none, what is taken
// of the input; and enters at each block.
func sameInflated(t *testing.T, raw []byte) {
	t.Helper()
	in := bytes.NewReader(raw)
	library.(flate.Resetter).Reset(in, nil)
	want, fault := io.ReadAll(library)
	left := in.Len()
	for _, r := range []io.Reader{bytes.NewReader(raw), iotest.HalfReader(bytes.NewReader(raw)), iotest.DataErrReader(iotest.OneByteReader(bytes.NewReader(raw)))} {
		got, rest, blocks, err := inflateOwn(r, max(len(raw), 16), nil, 0, 0)
		if (err == nil) != (fault == nil) {
			t.Fatalf("%v, the library says %v", err, fault)
		}
		// Where the input ends too early the library gives up some bits earlier.
		if fault == nil && !bytes.Equal(got, want) || !bytes.HasPrefix(got, want) {
			t.Fatalf("%d bytes, the library has %d; %v", len(got), len(want), fault)
		}
		if _, whole := r.(*bytes.Reader); fault != nil || !whole {
			continue
		}
		if rest != left {
			t.Fatalf("%d bytes are left, the library leaves %d", rest, left)
		}
		if len(blocks) > 4 {
			blocks = blocks[len(blocks)-4:]
		}
		for _, b := range blocks {
			var before byte
			if b.bits > 0 {
				before = raw[b.at-1]
			}
			if got, _, _, err := inflateOwn(bytes.NewReader(raw[b.at:]), 4096, b.window, before, b.bits); err != nil || !bytes.Equal(got, want[b.plain:]) {
				t.Fatalf("entered at %d, bit %d: %d bytes of %d, %v", b.at, b.bits, len(got), len(want)-b.plain, err)
			}
		}
	}
}

func deflated(t testing.TB, level int, pieces ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		w.Write(p)
		w.Flush()
	}
	w.Close()
	return b.Bytes()
}

// plains are bytes of many kinds: text, noise, runs, far repeats, few symbols.
func plains() (list [][]byte) {
	rng := rand.New(rand.NewPCG(5, 1))
	noise := make([]byte, 70000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	var text strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&text, "%d REGISTER sip:%d@198.51.100.%d\r\n", i*i, rng.IntN(1e6), rng.IntN(256))
	}
	skew := make([]byte, 60000) // codes of all lengths
	for i := range skew {
		skew[i] = byte(min(rng.ExpFloat64()*12, 255))
	}
	far := append(bytes.Clone(noise[:reach]), noise[:300]...)
	var steps []byte // each short distance
	for d := 1; d < 40; d++ {
		steps = append(append(steps, noise[:d]...), bytes.Repeat(noise[:d], 20)...)
	}
	return [][]byte{nil, {0}, []byte("a"), noise, []byte(text.String()), skew, far, steps, bytes.Repeat([]byte{7}, 300000), bytes.Repeat(noise[:1000], 300)}
}

// bitString packs bits as RFC 1951 does: "1 01 …" from the lowest bit of each byte on.
func bitString(s string) (out []byte) {
	n := 0
	for _, c := range s {
		if c != '0' && c != '1' {
			continue
		}
		if n%8 == 0 {
			out = append(out, 0)
		}
		out[n/8] |= byte(c-'0') << (n % 8)
		n++
	}
	return out
}

// TestInflate: what compressors write, at all levels, and what none writes, whole, cut
// and with each bit turned: as the standard library has it.
func TestInflate(t *testing.T) {
	for i, p := range plains() {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 5, 9} {
			t.Run(fmt.Sprintf("%d level %d", i, level), func(t *testing.T) {
				sameInflated(t, append(deflated(t, level, p), "tail"...))
				sameInflated(t, deflated(t, level, p[:len(p)/3], nil, p[len(p)/3:], p[:len(p)/5]))
			})
		}
	}
	odd := map[string]string{
		"no block":                  "",
		"reserved kind":             "1 11",
		"stored, empty":             "1 00 00000 0000000000000000 1111111111111111",
		"stored, wrong check":       "1 00 00000 0000000000000000 1111111111111110",
		"fixed, empty":              "1 10 0000000",
		"fixed, literal":            "1 10 00110000 0000000",
		"fixed, symbol 286":         "1 10 00110000 11000110 0000000",
		"fixed, distance too far":   "1 10 00110000 0000001 00001 0000000",
		"fixed, run":                "1 10 00110000 0000001 00000 0000000",
		"fixed, distance symbol 30": "1 10 00110000 0000001 11110 0000000",
		"286 literals and more":     "1 01 11111 00000 0000",
		"31 distances":              "1 01 00000 01111 0000",
		"no codes of lengths":       "1 01 00000 00000 0000 000 000 000 000 0000000000",
		"one code of lengths":       "1 01 00000 00000 0000 000 000 100 000 0000000000",
		"two codes of lengths":      "1 01 00000 00000 0000 000 000 100 100 1111111 1111111 1111111 0",
		"too many codes":            "1 01 00000 00000 0000 100 100 100 100 0000000000",
		"repeat of nothing":         "1 01 00000 00000 0000 100 000 100 000 0000000000",
	}
	for name, s := range odd {
		t.Run(name, func(t *testing.T) { sameInflated(t, bitString(s)) })
	}
	for _, p := range [][]byte{[]byte("squall"), bytes.Repeat([]byte("retry, retry; "), 20), plains()[5][:400]} {
		for _, level := range []int{flate.HuffmanOnly, 9} {
			raw := deflated(t, level, p)
			for i := range raw {
				if testing.Short() && i%8 > 0 && i > 40 { // heads are short
					continue
				}
				sameInflated(t, raw[:i])
				for bit := range 8 {
					raw[i] ^= 1 << bit
					sameInflated(t, raw)
					raw[i] ^= 1 << bit
				}
			}
		}
	}
}

func FuzzInflate(f *testing.F) {
	for _, p := range plains() {
		f.Add(deflated(f, 1, p[:min(len(p), 2000)]))
		f.Add(deflated(f, 9, p[:min(len(p), 2000)]))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		// A bomb costs what it unpacks to, in the library, too.
		if n, _ := io.Copy(io.Discard, io.LimitReader(flate.NewReader(bytes.NewReader(raw)), 1<<20)); n < 1<<20 {
			sameInflated(t, raw)
		}
	})
}

// flushed gives pieces of a stream one at a time, and looks at each whether all of the
// one before was given.
type flushed struct {
	t      *testing.T
	pieces [][]byte
	plain  []int // of the pieces so far
	given  *int
	at     int
}

func (f *flushed) Read(p []byte) (int, error) {
	if f.at > 0 && *f.given != f.plain[f.at-1] {
		f.t.Errorf("waits for piece %d with %d bytes given of %d", f.at, *f.given, f.plain[f.at-1])
	}
	if f.at == len(f.pieces) {
		return 0, io.EOF
	}
	n := copy(p, f.pieces[f.at])
	if f.pieces[f.at] = f.pieces[f.at][n:]; len(f.pieces[f.at]) == 0 {
		f.at++
	}
	return n, nil
}

// TestInflateWaitsForNothing: of a pipe that is flushed, all is given that came.
func TestInflateWaitsForNothing(t *testing.T) {
	for _, level := range []int{flate.HuffmanOnly, 0, 1, 9} {
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, level)
		given := 0
		in := &flushed{t: t, given: &given}
		total := 0
		for _, p := range plains() {
			w.Write(p)
			w.Flush()
			total += len(p)
			in.pieces, in.plain = append(in.pieces, bytes.Clone(b.Bytes())), append(in.plain, total)
			b.Reset()
		}
		z := new(inflater)
		z.start(bufio.NewReaderSize(in, 1<<20), nil, 0, 0)
		for buf := make([]byte, 1000); ; {
			n, err := z.Read(buf)
			given += n
			if err != nil {
				if err != io.ErrUnexpectedEOF || given != total {
					t.Errorf("level %d: %v after %d bytes of %d", level, err, given, total)
				}
				break
			}
		}
	}
}

// TestWindows: however much there is, what is kept of it stays small, and is what would
// be kept had it been known from the begin.
func TestWindows(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	window := make([]byte, reach)
	for i := range window {
		window[i] = byte(rng.Uint32())
	}
	fill := func(w *windows, files int) {
		for range files {
			f := file{windows: w}
			f.begin(&file{stats: FileStats{Compression: "gzip"}})
			for at := int64(windowEvery); at < 1<<30; at += 700000 {
				f.join(joint{plain: at, packed: at / 2}, window)
			}
		}
	}
	w := &windows{every: windowEvery}
	fill(w, 3)
	last := *w.of[2]
	if w.size > maxWindows || w.size < maxWindows/3 || last.Every < 8<<20 {
		t.Fatalf("%d bytes, one every %d", w.size, last.Every)
	}
	known := &windows{every: last.Every}
	fill(known, 3)
	// Taken up after the second.
	again := &windows{every: windowEvery}
	fill(again, 2)
	resumed := &windows{every: windowEvery}
	for _, x := range again.of {
		resumed.take(*again.finishedOf(x))
	}
	fill(resumed, 1)
	for i, x := range w.of {
		for _, other := range []*windows{known, resumed} {
			if y := other.of[i]; len(x.Joints) != len(y.Joints) || y.Every != x.Every {
				t.Fatalf("file %d: %d joints every %d, want %d every %d", i, len(y.Joints), y.Every, len(x.Joints), x.Every)
			}
			for k, j := range x.Joints {
				if j.plain != other.of[i].Joints[k].plain {
					t.Fatalf("file %d, joint %d: %d, want %d", i, k, other.of[i].Joints[k].plain, j.plain)
				}
			}
		}
	}
}

func (w *windows) finishedOf(x *Index) *Index { return w.finished(x, 0) }

// BenchmarkGunzip unpacks SQUALL_GZIP, a file of one member.
func BenchmarkGunzip(b *testing.B) {
	raw, err := os.ReadFile(os.Getenv("SQUALL_GZIP"))
	if err != nil {
		b.Skip("needs a gzip file to unpack: name one by SQUALL_GZIP=FILE")
	}
	readers := map[string]func(*bufio.Reader) (io.Reader, error){
		"own": func(br *bufio.Reader) (io.Reader, error) {
			r, _, err := unpack(br, "gzip", joint{}, nil)
			return r, err
		},
		"klauspost": func(br *bufio.Reader) (io.Reader, error) { return gzip.NewReader(br) },
	}
	for name, open := range readers {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				r, err := open(bufio.NewReaderSize(bytes.NewReader(raw), 64<<10))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 1<<20))
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
		})
	}
}
