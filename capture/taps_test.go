package capture_test

import (
	"io"
	"testing"

	"squall/capture"
)

// TestTaps: several streams come out in order of time, a silent one is not
// waited for for long, and one that is no capture is said to be none.
func TestTaps(t *testing.T) {
	want := random(400, 6)
	var ins []*io.PipeWriter
	var list []capture.Tap
	for _, name := range []string{"fra", "ams", "junk", "silent"} {
		r, w := io.Pipe()
		ins, list = append(ins, w), append(list, capture.Tap{Name: name, R: r})
	}
	src := capture.OpenTaps(list)
	defer src.Close()
	for i := range 2 {
		out, err := capture.NewWriter(ins[i], capture.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for k := i; k < len(want); k += 2 {
				if out.WritePacket(&want[k], "") != nil {
					return
				}
			}
			out.Close()
			ins[i].Close()
		}()
	}
	go func() { io.WriteString(ins[2], "no capture at all, this is text"); ins[2].Close() }()
	var got []capture.Packet
	files := map[uint32]int{}
	for len(got) < len(want) {
		b, err := src.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range b.Packets {
			files[p.File]++
			p.Data = append([]byte(nil), p.Data...)
			got = append(got, p)
		}
		b.Release()
	}
	same(t, "two of four taps", got, want)
	if files[0] != 200 || files[1] != 200 {
		t.Errorf("%v", files)
	}
	ins[3].Close()
	for {
		b, err := src.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
	all := src.Files()
	if len(all) != 4 || all[1].Path != "ams" || all[1].Packets != 200 || all[2].Damage == nil {
		t.Errorf("%+v", all)
	}
}
