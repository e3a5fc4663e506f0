package testnode_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"squall/dissect"
	"squall/replay"
	"squall/replay/testnode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

func start(t *testing.T, protocol string, cfg replay.NodeConfig) *testnode.Node {
	t.Helper()
	d, ok := replay.FindDialect(protocol)
	if !ok {
		t.Fatalf("no dialect %q", protocol)
	}
	n, err := testnode.Start(testnode.Config{Listen: anyPort, Dialect: d, Node: cfg, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

// client is one attempt over a real socket, step by step.
type client struct {
	t   *testing.T
	d   replay.Dialect
	c   net.Conn
	who replay.Identity
}

func dial(t *testing.T, n *testnode.Node, attempt uint64) *client {
	t.Helper()
	network := "tcp"
	if n.Dialect().Transport() == dissect.UDP {
		network = "udp"
	}
	c, err := net.DialTimeout(network, n.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	local, _ := netip.ParseAddrPort(c.LocalAddr().String())
	return &client{t, n.Dialect(), c, replay.Identity{Client: int64(attempt), Attempt: attempt, Local: local}}
}

func (c *client) ask() {
	if _, err := c.c.Write(c.d.Request(nil, &c.who)); err != nil {
		c.t.Fatal(err)
	}
}

// hear waits for the node's word.
func (c *client) hear(within time.Duration) (dissect.Kind, error) {
	c.c.SetReadDeadline(time.Now().Add(within))
	var got []byte
	piece := make([]byte, 2048)
	for {
		k, err := c.c.Read(piece)
		if err != nil {
			return 0, err
		}
		for got = append(got, piece[:k]...); len(got) > 0; {
			r := c.d.Read(&c.who, got)
			if r.N == 0 {
				break
			}
			if len(r.Next) > 0 {
				c.c.Write(r.Next)
			}
			if r.Kind != dissect.KindChallenge && r.Kind != dissect.KindProgress {
				return r.Kind, nil
			}
			got = got[r.N:]
		}
	}
}

// TestNodeAnswers: every protocol, accepted.
func TestNodeAnswers(t *testing.T) {
	for _, d := range replay.Dialects() {
		n := start(t, d.Name(), replay.NodeConfig{})
		for i := range uint64(3) {
			c := dial(t, n, i)
			c.ask()
			if kind, err := c.hear(2 * time.Second); kind != dissect.KindAccept || err != nil {
				t.Errorf("%s: %v, %v", d.Name(), kind, err)
			}
		}
		if c := n.Counters(); c.Requests != 3 || c.Accepted != 3 || c.Strange != 0 {
			t.Errorf("%s: %+v", d.Name(), c)
		}
	}
}

// TestNodeSaysNo: what a full queue looks like to the client.
func TestNodeSaysNo(t *testing.T) {
	for _, tc := range []struct {
		protocol string
		overload replay.Overload
		want     dissect.Kind // 0 = nothing comes
	}{
		{"sip", replay.Throttle, dissect.KindThrottle}, {"sip", replay.Refuse, dissect.KindRefuse}, {"sip", replay.Drop, 0},
		{"tcp", replay.Throttle, dissect.KindThrottle}, {"tcp", replay.Reset, 0}, {"gnutella", replay.Throttle, dissect.KindThrottle},
		{"gnutella", replay.Drop, 0}, {"n2n", replay.Refuse, dissect.KindRefuse}, {"stun", replay.Throttle, dissect.KindThrottle},
	} {
		n := start(t, tc.protocol, replay.NodeConfig{Capacity: 0.001, Service: replay.FixedService, Queue: 1, Overload: tc.overload})
		for i := range uint64(2) { // one is served for ever, one waits
			dial(t, n, i).ask()
			wait(t, func() bool { return n.Counters().Requests == int64(i)+1 })
		}
		c := dial(t, n, 9)
		c.ask()
		kind, err := c.hear(300 * time.Millisecond)
		if kind != tc.want || tc.want == 0 && err == nil {
			t.Errorf("%s, %v: %v, %v", tc.protocol, tc.overload, kind, err)
		}
		if tc.overload == replay.Reset && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s, reset: %v", tc.protocol, err)
		}
	}
}

// wait lets something happen that another goroutine does.
func wait(t *testing.T, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it does not happen")
}

// TestNodeStates: closed refuses, silent says nothing, up again serves; a
// session ends with its node.
func TestNodeStates(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		n := start(t, protocol, replay.NodeConfig{})
		session := dial(t, n, 1)
		session.ask()
		if kind, err := session.hear(time.Second); kind != dissect.KindAccept {
			t.Fatal(kind, err)
		}
		do := func(a replay.Action) {
			t.Helper()
			if err := n.Do(replay.Event{Do: a}); err != nil {
				t.Fatal(err)
			}
		}
		do(replay.Close)
		if protocol == "tcp" {
			if _, err := session.hear(time.Second); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the session of a closing node: %v", err)
			}
			if _, err := net.DialTimeout("tcp", n.Addr().String(), time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a closed node: %v", err)
			}
		} else {
			session.ask()
			if _, err := session.hear(time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a closed node: %v", err)
			}
		}
		do(replay.Raise)
		again := dial(t, n, 2)
		again.ask()
		if kind, err := again.hear(time.Second); kind != dissect.KindAccept {
			t.Errorf("%s, up again: %v, %v", protocol, kind, err)
		}
		do(replay.Down)
		if protocol == "tcp" {
			if c, err := net.DialTimeout("tcp", n.Addr().String(), 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) && !isTimeout(err) {
				t.Errorf("a silent node: %v, %v", c, err)
			}
		} else {
			c := dial(t, n, 3)
			c.ask()
			if kind, err := c.hear(200 * time.Millisecond); !isTimeout(err) {
				t.Errorf("a silent node: %v, %v", kind, err)
			}
		}
		do(replay.Raise)
		last := dial(t, n, 4)
		last.ask()
		if kind, err := last.hear(time.Second); kind != dissect.KindAccept {
			t.Errorf("%s, up at last: %v, %v", protocol, kind, err)
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// TestNodeProtectsItself: the last straw ends every session, and after a while
// the node is back.
func TestNodeProtectsItself(t *testing.T) {
	n := start(t, "tcp", replay.NodeConfig{ProtectAt: 3, Recovery: 300 * time.Millisecond})
	var held []*client
	for i := range uint64(3) {
		c := dial(t, n, i)
		c.ask()
		if kind, err := c.hear(time.Second); kind != dissect.KindAccept {
			t.Fatal(kind, err)
		}
		held = append(held, c)
	}
	straw := dial(t, n, 9)
	straw.ask()
	for _, c := range append(held, straw) {
		if kind, err := c.hear(time.Second); err == nil || isTimeout(err) {
			t.Errorf("a session outlives its node: %v, %v", kind, err)
		}
	}
	if c := n.Counters(); c.Falls != 1 || c.Sessions != 0 {
		t.Errorf("%+v", c)
	}
	wait(t, func() bool { return n.State() == replay.Up })
	wait(t, func() bool {
		c, err := net.Dial("tcp", n.Addr().String())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// TestRepeatsAreOneRequest: a datagram sent again while its answer is under
// way is not new work.
func TestRepeatsAreOneRequest(t *testing.T) {
	n := start(t, "sip", replay.NodeConfig{Capacity: 5, Service: replay.FixedService})
	c := dial(t, n, 1)
	for range 4 {
		c.ask()
	}
	if kind, err := c.hear(2 * time.Second); kind != dissect.KindAccept {
		t.Error(kind, err)
	}
	if k := n.Counters(); k.Requests != 1 {
		t.Errorf("%d requests", k.Requests)
	}
}

func TestControl(t *testing.T) {
	d, _ := replay.FindDialect("sip")
	c, err := testnode.StartCluster([]testnode.Config{{Listen: anyPort, Dialect: d}, {Listen: anyPort, Dialect: d}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if _, err := c.Control(netip.MustParseAddrPort("0.0.0.0:0")); err == nil {
		t.Error("the control listens to everybody")
	}
	at, err := c.Control(anyPort)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) string {
		r, err := web.Get("http://" + at.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b)
	}
	post := func(order string) (int, string) {
		r, err := web.Post("http://"+at.String()+"/do", "text/plain", strings.NewReader(order))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(b)
	}
	if m := get("/metrics"); !strings.Contains(m, `squall_node_up{node="2"`) || !strings.Contains(m, "# TYPE squall_node_requests_total counter") {
		t.Error(m)
	}
	if code, msg := post("node 2 down"); code != 200 {
		t.Error(code, msg)
	}
	if code, msg := post("node 3 down"); code != 400 || !strings.Contains(msg, "the last one is node 2") {
		t.Error(code, msg)
	}
	for _, alien := range []func(*http.Request){
		func(r *http.Request) { r.Host = "rebound.example:80" },
		func(r *http.Request) { r.Header.Set("Origin", "http://site.example") },
	} {
		r, _ := http.NewRequest("POST", "http://"+at.String()+"/do", strings.NewReader("node 1 down"))
		alien(r)
		answer, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != http.StatusForbidden {
			t.Errorf("a web page gives orders: %v", answer.Status)
		}
	}
	var rows []struct{ State string }
	if err := json.Unmarshal([]byte(get("/nodes")), &rows); err != nil || len(rows) != 2 || rows[0].State != "up" || rows[1].State != "silent" {
		t.Error(rows, err)
	}
	c.Play([]replay.Event{{At: 0, Node: -1, Do: replay.Close}})
	wait(t, func() bool { return bytes.Count([]byte(get("/nodes")), []byte("closed")) == 2 })
}

func TestStartErrors(t *testing.T) {
	if _, err := testnode.Start(testnode.Config{Listen: anyPort}); err == nil {
		t.Error("a node without a dialect starts")
	}
	d, _ := replay.FindDialect("tcp")
	if _, err := testnode.Start(testnode.Config{Listen: anyPort, Dialect: d, Node: replay.NodeConfig{Capacity: -1}}); err == nil {
		t.Error("a node with less than no capacity starts")
	}
	n := start(t, "tcp", replay.NodeConfig{})
	if _, err := testnode.StartCluster([]testnode.Config{{Listen: anyPort, Dialect: d}, {Listen: n.Addr(), Dialect: d}}); err == nil || !strings.Contains(err.Error(), "node 2") {
		t.Errorf("an address taken twice: %v", err)
	}
}
