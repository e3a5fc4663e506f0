package testnode

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"squall/replay"
)

// Cluster is several nodes in one process, and their control.
type Cluster struct {
	nodes []*Node
	http  *http.Server
	ln    net.Listener
	stop  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

// StartCluster starts a node for each configuration; when one cannot start
// none is left running.
func StartCluster(cfgs []Config) (*Cluster, error) {
	c := &Cluster{stop: make(chan struct{})}
	for i, cfg := range cfgs {
		n, err := Start(cfg)
		if err != nil {
			c.Stop()
			return nil, fmt.Errorf("node %d, %v: %w", i+1, cfg.Listen, err)
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// Nodes are the running nodes, in the order of their configurations.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Addrs are their addresses.
func (c *Cluster) Addrs() (a []netip.AddrPort) {
	for _, n := range c.nodes {
		a = append(a, n.Addr())
	}
	return a
}

// Do makes an event happen to its node, or to all.
func (c *Cluster) Do(e replay.Event) error {
	if e.Node >= len(c.nodes) {
		return fmt.Errorf("%v: the last one is node %d", e, len(c.nodes))
	}
	for i, n := range c.nodes {
		if e.Node < 0 || e.Node == i {
			if err := n.Do(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// Play runs a script against the nodes, its times counted from now, until it
// is over or the cluster stops.
func (c *Cluster) Play(script []replay.Event) {
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		epoch := time.Now()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for _, e := range script {
			timer.Reset(time.Until(epoch.Add(e.At)))
			select {
			case <-c.stop:
				return
			case <-timer.C:
			}
			c.Do(e) // the script was checked against the nodes before
		}
	}()
}

// Control serves the control on a loopback address: GET /metrics in the text
// format of Prometheus, GET /nodes as JSON, POST /do with the event of a
// script without its time ("node 2 down"). Any other address is refused: there
// is no password.
func (c *Cluster) Control(at netip.AddrPort) (netip.AddrPort, error) {
	if !at.Addr().Unmap().IsLoopback() {
		return netip.AddrPort{}, fmt.Errorf("control at %v: it has no password and listens on loopback only", at)
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return netip.AddrPort{}, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", c.metrics)
	mux.HandleFunc("GET /nodes", c.list)
	mux.HandleFunc("POST /do", c.order)
	c.ln, c.http = l, &http.Server{Handler: fromHere(mux), ReadHeaderTimeout: 5 * time.Second}
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		c.http.Serve(l)
	}()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// fromHere refuses what a page in a browser of this machine may ask: a name that
// somebody points to loopback, a form of another site.
func fromHere(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		at, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if host != "localhost" && (err != nil || !at.Unmap().IsLoopback()) || r.Header.Get("Origin") != "" {
			http.Error(w, "the control is asked by its loopback address, from no web page", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Stop stops the nodes and the control; no goroutine is left.
func (c *Cluster) Stop() {
	c.once.Do(func() {
		close(c.stop)
		if c.http != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if c.http.Shutdown(ctx) != nil {
				c.http.Close()
			}
			cancel()
		}
	})
	for _, n := range c.nodes {
		n.Stop()
	}
	c.wg.Wait()
}

// metricTable has the metrics of a node: name, help, kind, value.
var metricTable = []struct {
	name, help, kind string
	value            func(*Counters) int64
}{
	{"connections_total", "TCP connections taken", "counter", func(c *Counters) int64 { return c.Connections }},
	{"requests_total", "requests read", "counter", func(c *Counters) int64 { return c.Requests }},
	{"accepted_total", "requests accepted", "counter", func(c *Counters) int64 { return c.Accepted }},
	{"refused_total", "requests refused", "counter", func(c *Counters) int64 { return c.Refused }},
	{"throttled_total", "requests put off", "counter", func(c *Counters) int64 { return c.Throttled }},
	{"dropped_total", "requests left unanswered", "counter", func(c *Counters) int64 { return c.Dropped }},
	{"resets_total", "connections reset under load", "counter", func(c *Counters) int64 { return c.Resets }},
	{"strange_total", "messages of another protocol", "counter", func(c *Counters) int64 { return c.Strange }},
	{"falls_total", "self-protections and crashes", "counter", func(c *Counters) int64 { return c.Falls }},
	{"sessions", "sessions held now", "gauge", func(c *Counters) int64 { return c.Sessions }},
	{"waiting", "requests waiting now", "gauge", func(c *Counters) int64 { return c.Waiting }},
}

func (c *Cluster) metrics(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	for _, m := range metricTable {
		fmt.Fprintf(&b, "# HELP squall_node_%s %s\n# TYPE squall_node_%s %s\n", m.name, m.help, m.name, m.kind)
		for i, n := range c.nodes {
			k := n.Counters()
			fmt.Fprintf(&b, "squall_node_%s{node=\"%d\",address=\"%v\"} %d\n", m.name, i+1, n.Addr(), m.value(&k))
		}
	}
	fmt.Fprintf(&b, "# HELP squall_node_up 1 while the node serves\n# TYPE squall_node_up gauge\n")
	for i, n := range c.nodes {
		up := 0
		if n.State() == replay.Up {
			up = 1
		}
		fmt.Fprintf(&b, "squall_node_up{node=\"%d\",address=\"%v\"} %d\n", i+1, n.Addr(), up)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	io.WriteString(w, b.String())
}

func (c *Cluster) list(w http.ResponseWriter, _ *http.Request) {
	type row struct {
		Node     int    `json:"node"`
		Address  string `json:"address"`
		Protocol string `json:"protocol"`
		State    string `json:"state"`
		Counters
	}
	rows := []row{}
	for i, n := range c.nodes {
		rows = append(rows, row{i + 1, n.Addr().String(), n.Dialect().Name(), n.State().String(), n.Counters()})
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(rows)
}

// orderMost is longer than any event.
const orderMost = 200

func (c *Cluster) order(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, orderMost))
	if err == nil {
		var events []replay.Event
		if events, err = replay.ParseScript("at 0s: " + strings.TrimSpace(string(body))); err == nil && len(events) != 1 {
			err = fmt.Errorf("want one event")
		}
		if err == nil {
			err = c.Do(events[0])
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}
