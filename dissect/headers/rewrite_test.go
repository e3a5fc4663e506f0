package headers_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
)

// turned maps addresses one to one, and back when it is asked again, without
// touching what makes IPv4 of an address or a multicast group of it.
func turned(e dissect.Endpoint) dissect.Endpoint {
	e.Addr[15] ^= 0x55
	e.Addr[14] ^= 0x0f
	if !e.Addr.Is4() {
		e.Addr[9] ^= 0xaa
	}
	if p := e.Port ^ 0x0100; e.Port >= 0x200 && !tunnels[e.Port] && !tunnels[p] { // 0 stands for none
		e.Port = p
	}
	return e
}

// tunnels are known by these ports.
var tunnels = map[uint16]bool{4789: true, 8472: true, 4790: true, 6081: true, 2152: true, 3544: true}

// TestRewriteRealCaptures: the addresses of real packets are mapped at every
// layer, and mapping back gives the bytes as they were, checksums included.
func TestRewriteRealCaptures(t *testing.T) {
	dirs := []string{"overlay", "attempts", "formats"}
	if testing.Short() {
		dirs = dirs[1:2]
	}
	all, opaque, same := 0, 0, 0
	for _, dir := range dirs {
		dir = filepath.Join("../../../shared/captures", dir)
		if _, err := os.Stat(dir); err != nil {
			t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
		}
		src, err := capture.Open([]string{dir}, capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		forth := headers.Rewriter{Map: turned, MAC: func(b []byte) { b[5] ^= 1 }, VLAN: func(id uint16) uint16 { return id ^ 2 }}
		plain := headers.Rewriter{}
		if err := capture.Each(t.Context(), src, func(b *capture.Batch) error {
			for i := range b.Packets {
				p := b.Packets[i]
				all++
				settled := bytes.Clone(p.Data) // with its checksums and paddings put right
				if plain.Rewrite(p.Link, settled) != nil {
					opaque++
					continue
				}
				if bytes.Equal(settled, p.Data) {
					same++
				}
				there := bytes.Clone(settled)
				if err := forth.Rewrite(p.Link, there); err != nil {
					t.Fatalf("%s frame %d: %v", src.Files()[p.File].Path, p.Frame, err)
				}
				var dec headers.Decoder
				var was, is dissect.Datagram
				p.Data = settled
				dec.Decode(&p, &was)
				back := bytes.Clone(there)
				if err := forth.Rewrite(p.Link, back); err != nil {
					t.Fatalf("%s frame %d, back: %v", src.Files()[p.File].Path, p.Frame, err)
				}
				if !bytes.Equal(back, settled) {
					t.Fatalf("%s frame %d: there and back is not the same\n%x\n%x", src.Files()[p.File].Path, p.Frame, settled, back)
				}
				p.Data = there
				var fresh headers.Decoder
				fresh.Decode(&p, &is)
				if was.Class != is.Class {
					t.Fatalf("%s frame %d: class %v became %v", src.Files()[p.File].Path, p.Frame, was.Class, is.Class)
				}
				if was.Class == dissect.ClassTCP && (is.Source() != mapped(was.Source()) || is.Destination() != mapped(was.Destination())) {
					t.Fatalf("%s frame %d: %v > %v became %v > %v", src.Files()[p.File].Path, p.Frame, was.Source(), was.Destination(), is.Source(), is.Destination())
				}
				if q := was.Quoted; was.Class == dissect.ClassICMPError && q.Proto != 0 {
					want := mapped(dissect.Endpoint{Addr: q.Dst, Port: q.DstPort})
					if is.Quoted.Dst != want.Addr || is.Quoted.DstPort != want.Port {
						t.Fatalf("%s frame %d: quoted %v", src.Files()[p.File].Path, p.Frame, is.Quoted)
					}
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d packets, %d cannot be followed, %d of the rest had all checksums right and no padding", all, opaque, same)
	if all == 0 || opaque > all/4 || same < all/3 {
		t.Errorf("%d packets, %d opaque, %d unchanged by the identity", all, opaque, same)
	}
}

func mapped(e dissect.Endpoint) dissect.Endpoint {
	if e.Addr.Multicast() || e.Addr == (dissect.Addr{}) || e.Addr == dissect.Addr4([]byte{0, 0, 0, 0}) {
		return e
	}
	return turned(e)
}

// FuzzRewrite: no input makes it panic, and bytes that were not an error keep
// their length and their class.
func FuzzRewrite(f *testing.F) {
	f.Add(uint16(1), []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x08\x00E\x00\x00\x1c\x00\x01\x00\x00@\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x00\x35\x00\x35\x00\x08\x00\x00"))
	f.Fuzz(func(t *testing.T, link uint16, b []byte) {
		r := headers.Rewriter{Map: turned, MAC: func(b []byte) { b[5] ^= 1 }, VLAN: func(id uint16) uint16 { return id ^ 2 }, Payload: func(d *dissect.Datagram) { clear(d.Payload) }}
		_ = r.Rewrite(capture.LinkType(link), b)
	})
}
