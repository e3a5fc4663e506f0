package capture

import (
	"fmt"
	"io"
	"sync/atomic"
)

// Commented reads a pcapng file and gives the comments of its sections, and its
// packets each with its comments. What each gets is valid until it returns.
func Commented(path string, section func(comment string), packet func(p *Packet, comments []string) error) error {
	f, err := openFile(path, new(atomic.Int64), 64<<10)
	if err != nil {
		return err
	}
	defer f.close()
	ng, ok := f.f.(*ngFile)
	if !ok {
		return fmt.Errorf("%s: %w with comments: it is %s, and pcapng has them", path, ErrFormat, f.stats.Format)
	}
	of := map[int64][]string{} // by frame, of what is read and not given yet
	ng.remark = func(packet bool, c string) {
		if !packet {
			section(c)
			return
		}
		n := f.stats.Packets + 1
		if f.doubt { // one more waits to be counted
			n++
		}
		of[n] = append(of[n], c)
	}
	for {
		b, err := f.nextBatch()
		if err == io.EOF {
			break
		}
		for i := range b.Packets {
			p := &b.Packets[i]
			if err := packet(p, of[p.Frame]); err != nil {
				b.Release()
				return err
			}
			delete(of, p.Frame)
		}
		b.Release()
	}
	if d := f.stats.Damage; d != nil {
		return fmt.Errorf("%s: offset %d, frame %d: %s", path, d.Offset, d.Frame, d.Reason)
	}
	return nil
}
