package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

const (
	trackerConnect   = trackerMagic + "\x00\x00\x00\x00TXN1"
	trackerConnected = "\x00\x00\x00\x00TXN1CONNECTN"
	trackerGet       = "GET /announce?info_hash=%e4%be&peer_id=-TR2940-chho92c&port=51413&event=started HTTP/1.1\r\nHost: tracker.example.org:6969\r\nUser-Agent: Transmission/2.94\r\n\r\n"
)

func announce(txn string, event byte) string {
	return "CONNECTN\x00\x00\x00\x01" + txn + strings.Repeat("h", 20) + "-DE13F0-VnpZRF8abcde" + strings.Repeat("\x00", 24) + "\x00\x00\x00" + string(event) +
		"\x00\x00\x00\x00KEY1\xff\xff\xff\xff\x1a\xe1"
}

func TestTrackerUDP(t *testing.T) {
	yes := func(txn string) string {
		return "\x00\x00\x00\x01" + txn + "\x00\x00\x07\x08\x00\x00\x00\x00\x00\x00\x00\x01"
	}
	converse(t, tracker{}, dissect.ProtoUDP, 6969, []line{
		{data: trackerConnect, kind: dissect.KindRequest, op: "connect", role: dissect.RoleTracker},
		{node: true, data: trackerConnected, kind: dissect.KindChallenge, op: "connect", same: 1},
		{data: announce("TXN2", 2), kind: dissect.KindRequest, op: "announce", id: "-DE13F0-VnpZRF8abcde", version: "-DE13F0-"},
		{node: true, data: yes("TXN2"), kind: dissect.KindAccept, op: "announce", same: 3},
		{data: announce("TXN3", 0), kind: dissect.KindRefresh, op: "announce"},
		{node: true, data: yes("TXN3"), kind: dissect.KindAccept, same: 5},
		{data: announce("TXN4", 3), kind: dissect.KindClose, op: "announce"},
	})
	converse(t, tracker{}, dissect.ProtoUDP, 6969, []line{
		{data: announce("TXN9", 2), kind: dissect.KindRequest, op: "announce"},
		{node: true, data: "\x00\x00\x00\x03TXN9Connection ID mismatch", kind: dissect.KindRefuse, op: "error", same: 1},
		{data: "CONNECTN\x00\x00\x00\x02TXNAhhhhhhhhhhhhhhhhhhhh", kind: dissect.KindRequest, op: "scrape"},
		{node: true, data: "\x00\x00\x00\x02TXNA", kind: dissect.KindAccept, op: "scrape", same: 3},
	})
	strangers(t, tracker{}, dissect.ProtoUDP, 6969, trackerConnect[:15], strings.Repeat("\x00", 98), announce("TXN9", 9), trackerMagic+"\x00\x00\x00\x01TXN1")
}

// TestTrackerLegs: connect and the first announce are one attempt, later
// announces stand for themselves.
func TestTrackerLegs(t *testing.T) {
	var f dissect.Flow
	read := func(node bool, b string) dissect.Message {
		f.FromClient = !node
		m := dissect.Message{FromClient: !node}
		if _, err := (tracker{}).Dissect(packet(dissect.ProtoUDP, 1, 2, b), &f, &m); err != nil {
			t.Error(err)
		}
		return m
	}
	connect := read(false, trackerConnect)
	again := read(false, trackerConnect)
	read(true, trackerConnected)
	first := read(false, announce("TXN2", 2))
	other := read(false, announce("TXN3", 2))
	if connect.Chain == 0 || connect.Txn != again.Txn || first.Chain != connect.Chain || other.Chain != 0 || first.Txn == other.Txn {
		t.Errorf("chains %x %x %x", connect.Chain, first.Chain, other.Chain)
	}
	if connect.Timeout != 15*second {
		t.Errorf("timeout %d", connect.Timeout)
	}
}

func TestTrackerHTTP(t *testing.T) {
	ask := line{data: trackerGet, kind: dissect.KindRequest, op: "announce", id: "-TR2940-chho92c", version: "Transmission/2.94", name: "tracker.example.org", role: dissect.RoleTracker}
	for answer, want := range map[string]line{
		"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nd8:intervali1800ee..":  {kind: dissect.KindAccept, op: "announce"},
		"HTTP/1.0 200 OK\r\n\r\nd14:failure reason6:bannede":                 {kind: dissect.KindRefuse, op: "failure"},
		"HTTP/1.0 200 OK\r\n\r\nd14:failure reason4:busy8:retry ini5ee":      {kind: dissect.KindThrottle, retry: 300 * second},
		"HTTP/1.0 200 OK\r\n\r\nd14:failure reason4:gone8:retry in5:nevere":  {kind: dissect.KindRefuse},
		"HTTP/1.0 200 OK\r\n\r\n<html>not here</html>":                       {kind: dissect.KindRefuse},
		"HTTP/1.0 200 OK\r\n\r\n\x1f\x8b\x08\x00":                            {kind: dissect.KindAccept},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3a\r\nd8:inte": {kind: dissect.KindAccept},
		"HTTP/1.1 307 Temporary Redirect\r\nLocation: x\r\n\r\n":             {kind: dissect.KindRedirect},
		"HTTP/1.1 503 Busy\r\nRetry-After: 60\r\n\r\n":                       {kind: dissect.KindThrottle, retry: 60 * second},
		"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n":                {kind: dissect.KindRefuse},
	} {
		want.node, want.data, want.same = true, answer, 1
		converse(t, tracker{}, dissect.ProtoTCP, 80, []line{ask, want})
	}
	strangers(t, tracker{}, dissect.ProtoTCP, 80, "GET /announce HTTP/1.1\r\n\r\n", "GET /?info_hash=x HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nReferer: /announce?info_hash=x\r\n\r\n")
}

func TestTrackerCaptures(t *testing.T) {
	for name, want := range map[string]string{
		"overlay/tracker.pcap":   "bt-tracker/tracker accepted",
		"overlay/bt-http.pcapng": "bt-tracker/tracker throttled",
	} {
		src, _ := real(t, name)
		found := false
		for _, r := range analyse(t, src, All()) {
			found = found || r.Service+" "+r.Outcome.String() == want
		}
		if !found {
			t.Errorf("%s: no row is %s", name, want)
		}
	}
}

func FuzzTracker(f *testing.F) {
	fuzzProtocol(f, tracker{}, 6969, trackerConnect, trackerConnected, announce("TXN2", 2), "\x00\x00\x00\x03TXN9no",
		trackerGet, "HTTP/1.0 200 OK\r\n\r\nd14:failure reason4:busy8:retry ini5ee", "HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\nd")
}
