package capture

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Plain takes the compression off a stream that is no capture: a log. It gives
// the first bytes of what is inside, up to head of them, which the reader gives
// again, and the name of the compression; done gives its memory back.
func Plain(r io.Reader, head int) (in io.Reader, first []byte, compression string, done func(), err error) {
	br := bufio.NewReaderSize(r, max(head, 64))
	first, _ = br.Peek(4)
	done = func() {}
	var z io.Reader
	switch {
	case bytes.HasPrefix(first, []byte{0x1f, 0x8b}):
		compression = "gzip"
		z, err = gzip.NewReader(br)
	case bytes.HasPrefix(first, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		compression = "zstd"
		var d *zstd.Decoder
		if d, err = zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20)); err == nil {
			z, done = d, d.Close
		}
	case bytes.HasPrefix(first, []byte{0x04, 0x22, 0x4d, 0x18}):
		compression, z = "lz4", lz4.NewReader(br)
	case bytes.HasPrefix(first, []byte("BZh")):
		compression, z = "bzip2", bzip2.NewReader(br)
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
