package overlay

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/samples"
)

const (
	gnutellaConnect = "GNUTELLA CONNECT/0.6\r\nNode: 93.47.226.53:28681\r\nUser-Agent: gtk-gnutella/1.2.2 (2022-02-25; GTK2)\r\nGUID: 74e83102414c9fb617abb10c9760594a\r\nX-Ultrapeer: False\r\n\r\n"
	gnutellaYes     = "GNUTELLA/0.6 200 OK\r\nUser-Agent: Shareaza 2.7.10.2\r\nX-Ultrapeer: True\r\n\r\n"
	gnutellaThanks  = "GNUTELLA/0.6 200 OK\r\nX-Hub: False\r\n\r\n"
)

func TestGnutella(t *testing.T) {
	hello := line{data: gnutellaConnect, kind: dissect.KindRequest, op: "CONNECT", id: "74e83102414c9fb617abb10c9760594a",
		version: "gtk-gnutella/1.2.2 (2022-02-25; GTK2)", role: dissect.RoleSupernode}
	converse(t, gnutella{}, dissect.ProtoTCP, 6346, []line{hello,
		{node: true, data: gnutellaYes, kind: dissect.KindAccept, op: "200", version: "Shareaza 2.7.10.2"},
		{data: gnutellaThanks, kind: dissect.KindData},
	})
	converse(t, gnutella{}, dissect.ProtoTCP, 6346, []line{hello,
		{node: true, data: gnutellaYes, kind: dissect.KindAccept},
		{data: "GNUTELLA/0.6 503 Not needed\r\n\r\n", kind: dissect.KindClose, op: "no"},
	})
	converse(t, gnutella{}, dissect.ProtoTCP, 6346, []line{
		{data: "GNUTELLA CONNECT/0.4\n\n", kind: dissect.KindRequest, op: "CONNECT", role: dissect.RolePeer},
		{node: true, data: "GNUTELLA OK\n\n", kind: dissect.KindAccept},
	})
	for answer, kind := range map[string]dissect.Kind{
		"GNUTELLA/0.6 503 No QRP\r\nX-Try-Ultrapeers: 1.163.14.246:12854\r\n\r\n":             dissect.KindRedirect,
		"GNUTELLA/0.6 503 Shielded leaf node\r\nX-Try-Hubs: 31.38.163.2:6346\r\n\r\n":         dissect.KindRedirect,
		"GNUTELLA/0.6 503 Too many leaf connections (300 max)\r\nUser-Agent: Foxy\r\n\r\n":    dissect.KindThrottle,
		"GNUTELLA/0.6 503 I am busy.\r\nX-Try-Ultrapeers:\r\n\r\n":                            dissect.KindThrottle,
		"GNUTELLA/0.6 204 Shielded leaf node (2 peers max)\r\nX-Ultrapeer: False\r\n\r\n":     dissect.KindRefuse,
		"GNUTELLA/0.6 403 Forbidden\r\n\r\n":                                                  dissect.KindRefuse,
		"GNUTELLA/0.6 204 Shielded leaf node\r\nx-try: 10.0.0.1:6346\r\nX-Other: a:b\r\n\r\n": dissect.KindRedirect,
	} {
		converse(t, gnutella{}, dissect.ProtoTCP, 6346, []line{hello, {node: true, data: answer, kind: kind}})
	}
	strangers(t, gnutella{}, dissect.ProtoTCP, 6346, "GNUTELLA", "GNUTELLA-IS-NICE 1.0", "GET /gnutella HTTP/1.1\r\n\r\n", "GNUTELLA CONNECT")
}

// gnutellaBinary is a message of a session.
func gnutellaBinary(kind byte, payload string) string {
	return strings.Repeat("g", 16) + string([]byte{kind, 7, 0, byte(len(payload)), byte(len(payload) >> 8), 0, 0}) + payload
}

// TestGnutellaBye: a session of plain messages is followed to its BYE.
func TestGnutellaBye(t *testing.T) {
	connect := line{data: gnutellaConnect, kind: dissect.KindRequest}
	yes, thanks := line{node: true, data: gnutellaYes, kind: dissect.KindAccept}, line{data: gnutellaThanks, kind: dissect.KindData}
	ping, query := gnutellaBinary(0, ""), gnutellaBinary(0x80, "\x00\x00overlay\x00")
	bye := gnutellaBinary(2, "\xc8\x00shutting down\x00")
	converse(t, gnutella{}, dissect.ProtoTCP, 6346, []line{connect, yes, thanks, {data: ping, kind: dissect.KindData}, {node: true, data: query, kind: dissect.KindData},
		{node: true, data: bye, kind: dissect.KindClose, op: "BYE"}})
	converse(t, gnutella{}, dissect.ProtoTCP, 6346, []line{{data: "GNUTELLA CONNECT/0.4\n\n", kind: dissect.KindRequest}, {node: true, data: "GNUTELLA OK\n\n", kind: dissect.KindAccept},
		{data: query, kind: dissect.KindData}, {data: bye, kind: dissect.KindClose, op: "BYE"}})
	// One side deflates: the other is still followed.
	deflates := strings.Replace(gnutellaYes, "\r\n\r\n", "\r\nContent-Encoding: deflate\r\n\r\n", 1)
	converse(t, gnutella{}, dissect.ProtoTCP, 6346, []line{connect, {node: true, data: deflates, kind: dissect.KindAccept}, thanks, {data: bye, kind: dissect.KindClose, op: "BYE"}})
	f := dissect.Flow{Step: gnutellaSession, Flags: 2}
	if _, err := (gnutella{}).Dissect(packet(dissect.ProtoTCP, 6346, 40000, bye), &f, &dissect.Message{}); err == nil {
		t.Error("deflated bytes are read")
	}
	f = dissect.Flow{Step: gnutellaSession, FromClient: true}
	if _, err := (gnutella{}).Dissect(packet(dissect.ProtoTCP, 40000, 6346, noise(60)), &f, &dissect.Message{}); err == nil {
		t.Error("bytes that are no message are read")
	}
}

var (
	gnutellaPing = unhex("5d2fe235310200641ac4000102030405 00010000000000")
	gnutellaPong = gnutellaPing[:16] + unhex("0101000e000000") + strings.Repeat("p", 14)
)

func TestGnutellaDatagrams(t *testing.T) {
	ping := gnutellaPing
	converse(t, gnutella{}, dissect.ProtoUDP, 6346, []line{
		{data: ping, kind: dissect.KindRequest, op: "PING", role: dissect.RolePeer},
		{node: true, data: gnutellaPong, kind: dissect.KindAccept, op: "PONG", same: 1},
	})
	dht := unhex("c3f831029913d255ad775dfac8e59170 440000")
	converse(t, gnutella{}, dissect.ProtoUDP, 6346, []line{
		{data: dht + unhex("03000000 050000"), kind: dissect.KindRequest, op: "DHT"},
		{node: true, data: dht + unhex("02000000 0600"), kind: dissect.KindAccept, op: "DHT", same: 1},
	})
	converse(t, gnutella{}, dissect.ProtoUDP, 6346, []line{
		{data: unhex("474e44103e950101540b514b525006524e415d2fe2350970"), kind: dissect.KindRequest, op: "QKR", role: dissect.RoleSupernode},
		{node: true, data: unhex("474e441000010101540b514b415006524e415d2fe2350970"), kind: dissect.KindAccept, op: "QKA", same: 1},
		{node: true, data: unhex("474e44103e950100"), kind: dissect.KindData},
	})
	strangers(t, gnutella{}, dissect.ProtoUDP, 6346, "GND", ping[:22], ping+"x", unhex("5d2fe235310200641ac4000102030405 05 01 00 00000000"))
}

func FuzzGnutella(f *testing.F) {
	fuzzProtocol(f, gnutella{}, 6346, gnutellaConnect+gnutellaThanks, gnutellaYes, "GNUTELLA CONNECT/0.4\n\n", "GNUTELLA/0.6 503",
		unhex("474e44103e950101540b514b525006524e415d2fe2350970"), strings.Repeat("\x00", 23), unhex("474e44100000010154ff"))
}

// analyse gives the rows of a capture, by start and source.
func analyse(t *testing.T, src capture.Source, protocols []dissect.Protocol) []dissect.Attempt {
	t.Helper()
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 1, Protocols: protocols}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var rows []dissect.Attempt
	for r, err := range a.Attempts() {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, *r)
	}
	slices.SortStableFunc(rows, func(a, b dissect.Attempt) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), a.Source.Compare(b.Source))
	})
	return rows
}

// TestGnutellaAsSimulated reads simulated outages with all protocols on: the
// rows are those of the oracle, which knows no overlay and takes a node's first
// byte for a yes, and they are named.
func TestGnutellaAsSimulated(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for _, name := range []string{"s1", "s10", "skype-2010"} {
		sc, ok := samples.Find(name)
		if !ok || sc.Protocol != "gnutella" {
			continue
		}
		sc.Clients = min(sc.Clients, 1000)
		sc.Duration = min(sc.Duration, sc.Trigger+45*time.Second)
		for seed := uint64(1); seed <= seeds; seed++ {
			var packets []capture.Packet
			if _, err := samples.Simulate(sc, seed, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
				t.Fatal(err)
			}
			want := samples.Oracle(packets)
			got := analyse(t, capture.Memory(packets), All())
			if len(got) != len(want) {
				t.Errorf("%s seed %d: %d attempts, the oracle has %d", name, seed, len(got), len(want))
				continue
			}
			named, bad, intents := 0, 0, map[uint64]int{}
			for i := range got {
				g, w := &got[i], &want[i]
				gs := fmt.Sprintf("%v>%v %d %v late=%v n=%d %v #%d", g.Source, g.Destination, g.Start, g.Outcome, g.Late, g.Transmissions, g.Relation, g.Number)
				ws := fmt.Sprintf("%v>%v %d %v late=%v n=%d %v #%d", w.Source, w.Target, w.Start, w.Outcome, w.Late, w.Transmissions, w.Relation, w.Number)
				if gs != ws {
					if bad++; bad <= 3 {
						t.Errorf("%s seed %d row %d:\n got %s (%v)\nwant %s (%s)", name, seed, i, gs, g.Evidence, ws, w.Evidence)
					}
				}
				if g.Protocol == "gnutella" {
					named++
					if g.Service != "gnutella/supernode" || g.Outcome == dissect.OutcomeAccepted && (g.Evidence != dissect.EvidenceApp || g.ClientVersion == "") {
						t.Errorf("%s seed %d: %v is %s, version %q, evidence %v", name, seed, g.Source, g.Service, g.ClientVersion, g.Evidence)
					}
				} else if g.Outcome == dissect.OutcomeAccepted {
					t.Errorf("%s seed %d: %v is accepted and called %q", name, seed, g.Source, g.Protocol)
				}
				if n, ok := intents[g.IntentID]; ok && n != w.Intent && g.Relation != dissect.RelationParallel {
					t.Errorf("%s seed %d row %d: an intent that the rules keep apart", name, seed, i)
				}
				if g.Relation != dissect.RelationParallel {
					intents[g.IntentID] = w.Intent
				}
			}
			t.Logf("%s seed %d: %d attempts, %d named, %d differ", name, seed, len(got), named, bad)
		}
	}
}
