package replay_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"squall/replay"
)

func addrs(list ...string) (a []netip.Addr) {
	for _, s := range list {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

func nets(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// TestGuard has the rules case by case.
func TestGuard(t *testing.T) {
	g, err := replay.NewGuard(nets("10.1.2.0/24", "192.168.7.9/32", "fd00:1:2:3::/64", "::ffff:172.16.5.0/120", "198.51.100.0/24", "127.0.0.0/8"),
		addrs("10.1.2.77", "::ffff:10.1.2.78", "127.0.0.9", "fd00:1:2:3::5"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ addr, why string }{
		{"127.0.0.1", ""}, {"127.200.3.4", ""}, {"::1", ""}, {"::ffff:127.0.0.1", ""},
		{"127.0.0.9", ""}, // recorded, but loopback
		{"10.1.2.3", ""}, {"::ffff:10.1.2.3", ""}, {"64:ff9b::10.1.2.3", ""}, {"192.168.7.9", ""}, {"172.16.5.200", ""}, {"fd00:1:2:3::99", ""},
		{"198.51.100.7", ""},
		{"10.1.3.3", "private"}, {"192.168.7.10", "private"}, {"fd00:1:2:4::1", "private"}, {"fe80::1", "private"}, {"169.254.1.1", "private"},
		{"::ffff:10.9.9.9", "private"}, {"64:ff9b::10.9.9.9", "private"}, {"64:ff9b:1::192.168.0.1", "private"}, {"203.0.113.5", "private"},
		{"100.64.1.1", "private"}, {"2001:db8::1", "private"},
		{"8.8.8.8", "public"}, {"::ffff:8.8.8.8", "public"}, {"64:ff9b::8.8.8.8", "public"}, {"2606:4700::1111", "public"}, {"172.32.0.1", "public"},
		{"64:ff9b::127.0.0.1", "public"}, {"64:ff9b:1::127.0.0.1", "public"}, // they leave through a translator
		{"2002:0a01:0203::1", "public"}, // 6to4 of a private address leaves through a relay
		{"10.1.2.0", "network or broadcast"}, {"10.1.2.255", "network or broadcast"}, {"::ffff:10.1.2.255", "network or broadcast"},
		{"10.1.2.77", "occurs in the capture"}, {"10.1.2.78", "occurs in the capture"}, {"::ffff:10.1.2.77", "occurs in the capture"},
		{"fd00:1:2:3::5", "occurs in the capture"},
		{"224.0.0.1", "never"}, {"239.1.2.3", "never"}, {"255.255.255.255", "never"}, {"0.0.0.0", "never"}, {"0.1.2.3", "never"}, {"240.0.0.1", "never"},
		{"::", "never"}, {"ff02::1", "never"}, {"::ffff:224.0.0.1", "never"}, {"::ffff:255.255.255.255", "never"}, {"64:ff9b::224.0.0.1", "never"},
		{"fe80::1%eth0", "private"},
	} {
		err := g.Check(netip.MustParseAddr(tc.addr))
		var no *replay.Refusal
		if tc.why == "" && err != nil || tc.why != "" && (!errors.As(err, &no) || !strings.Contains(no.Reason, tc.why)) {
			t.Errorf("%s: %v, want %q", tc.addr, err, tc.why)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %v", tc.addr, err)
		}
	}
	if g.Check(netip.Addr{}) == nil {
		t.Error("no address is an address")
	}
}

func TestAllowIsNarrow(t *testing.T) {
	for p, why := range map[string]string{
		"10.0.0.0/23": "wider than /24", "10.0.0.0/8": "wider", "0.0.0.0/0": "wider", "fd00::/63": "wider than /64", "::/0": "wider",
		"::ffff:10.0.0.0/119": "wider", "::ffff:0:0/90": "wider", "8.8.8.0/24": "consent", "2606:4700::/64": "consent", "224.0.0.0/24": "never", "255.255.255.255/32": "never",
	} {
		_, err := replay.NewGuard(nets(p), nil)
		var no *replay.Refusal
		if !errors.As(err, &no) || !strings.Contains(no.Reason, why) {
			t.Errorf("--allow %s: %v, want %q", p, err, why)
		}
	}
}

// TestTargetsAreResolvedOnce: names count by all of their addresses.
func TestTargetsAreResolvedOnce(t *testing.T) {
	g, err := replay.NewGuard(nets("10.1.2.0/24"), nil)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string][]netip.Addr{"good": addrs("10.1.2.3", "127.0.0.1"), "mixed": addrs("127.0.0.1", "8.8.8.8"), "mapped": addrs("::ffff:127.0.0.1"), "empty": {}}
	asked := 0
	lookup := func(_ context.Context, _, host string) ([]netip.Addr, error) {
		asked++
		if a, ok := names[host]; ok {
			return a, nil
		}
		return nil, errors.New("no such host")
	}
	for _, tc := range []struct{ target, want, why string }{
		{"127.0.0.1:5060", "127.0.0.1:5060", ""}, {"[::1]:5060", "[::1]:5060", ""}, {"good:7", "10.1.2.3:7", ""}, {"mapped:7", "127.0.0.1:7", ""},
		{"mixed:7", "", "8.8.8.8 is public"}, {"empty:7", "", "no address"}, {"nowhere:7", "", "no such host"}, {"127.0.0.1", "", "want HOST:PORT"},
		{"127.0.0.1:0", "", "want a port"}, {"127.0.0.1:http", "", "want a port"}, {"8.8.8.8:53", "", "public"},
	} {
		got, err := g.Resolve(t.Context(), tc.target, lookup)
		if tc.why == "" && (err != nil || got.String() != tc.want) || tc.why != "" && (err == nil || !strings.Contains(err.Error(), tc.why)) {
			t.Errorf("%s: %v, %v", tc.target, got, err)
		}
	}
	if asked != 5 {
		t.Errorf("names were looked up %d times, want once each", asked)
	}
}

// TestConsent: a lease opens its address, its end and its loss close it.
func TestConsent(t *testing.T) {
	until := time.Now().Add(time.Hour)
	node := httptest.NewServer(replay.ConsentHandler(until, 5000))
	defer node.Close()
	at := netip.MustParseAddrPort(strings.TrimPrefix(node.URL, "http://"))
	lease, err := replay.AskConsent(t.Context(), at)
	if err != nil || lease.MaxRate != 5000 || !lease.Until.Equal(until) {
		t.Fatalf("%+v, %v", lease, err)
	}
	// The same leave, as if the node were public.
	lease.Addr = netip.MustParseAddr("8.8.8.8")
	g, err := replay.NewGuard(nil, addrs("9.9.9.9"))
	if err != nil {
		t.Fatal(err)
	}
	g.Trust(lease)
	if err := g.Check(lease.Addr); err != nil {
		t.Errorf("with consent: %v", err)
	}
	if g.Check(netip.MustParseAddr("8.8.4.4")) == nil {
		t.Error("the consent of one opens another")
	}
	for _, never := range addrs("224.0.0.1", "9.9.9.9") { // no lease opens these
		lease.Addr = never
		g.Trust(lease)
		if g.Check(never) == nil {
			t.Errorf("%v is sent to by consent", never)
		}
	}
	lease.Addr = netip.MustParseAddr("8.8.8.8")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan error, 1)
	node.Close()
	go lease.Keep(ctx, at, func(err error) { over <- err })
	select {
	case err := <-over:
		if g.Check(lease.Addr) == nil || !strings.Contains(err.Error(), "not confirmed") {
			t.Errorf("lost, but still open: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the loss of the consent is not noticed")
	}
	for name, h := range map[string]http.Handler{
		"ended":      replay.ConsentHandler(time.Now().Add(-time.Second), 5000),
		"no rate":    replay.ConsentHandler(until, 0),
		"other site": http.NotFoundHandler(),
		"redirect":   http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound),
		"no nonce": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"squall_consent":1,"nonce":"x","until":"2999-01-01T00:00:00Z","max_rate":5}`))
		}),
	} {
		s := httptest.NewServer(h)
		var no *replay.Refusal
		if _, err := replay.AskConsent(t.Context(), netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))); !errors.As(err, &no) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}
