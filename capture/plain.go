package capture

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// packed tells a compression by the first bytes of a file; empty = none.
func packed(head []byte) string {
	// Skippable frames, of zstd or of lz4, may come first; pzstd begins with one.
	for rest := head; len(rest) >= 8 && binary.LittleEndian.Uint32(rest)&^15 == 0x184d2a50; {
		head = []byte{0x28, 0xb5, 0x2f, 0xfd} // it cannot be seen
		n := 8 + int64(binary.LittleEndian.Uint32(rest[4:]))
		if n > int64(len(rest)-4) {
			break
		}
		rest = rest[n:]
		head = rest
	}
	for _, p := range []struct{ begins, name string }{
		{"\x1f\x8b", "gzip"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"\x04\x22\x4d\x18", "lz4"}, {"BZh", "bzip2"}, {"\xfd7zXZ", "xz"},
	} {
		if bytes.HasPrefix(head, []byte(p.begins)) {
			return p.name
		}
	}
	return ""
}

// Plain takes the compression off a stream that is no capture: a log. It gives
// the first bytes of what is inside, up to head of them, which the reader gives
// again, and the name of the compression; done gives its memory back.
func Plain(r io.Reader, head int) (in io.Reader, first []byte, compression string, done func(), err error) {
	br := bufio.NewReaderSize(r, max(head, 64))
	first, _ = br.Peek(64)
	done = func() {}
	var z io.Reader
	switch compression = packed(first); compression {
	case "gzip":
		z, err = gzip.NewReader(br)
	case "zstd":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20)); err == nil {
			z, done = d, d.Close
		}
	case "lz4":
		z = lz4.NewReader(br)
	case "bzip2":
		z = bzip2.NewReader(br)
	default:
		compression = ""
	}
	if err != nil {
		return nil, nil, "", done, fmt.Errorf("%s: %w", compression, err)
	}
	if z != nil {
		br = bufio.NewReaderSize(z, max(head, 64))
	}
	first, _ = br.Peek(head)
	return br, first, compression, done, nil
}
