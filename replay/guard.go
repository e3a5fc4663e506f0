package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

// Refusal is a no of the safety rules; commands exit 4 on it.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return "refused: " + r.Reason }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// The widest prefixes that may be allowed: a wider one is a typing error, or a
// network of somebody else.
const (
	allowBits4 = 24
	allowBits6 = 64
)

func prefixes(list ...string) *bart.Lite {
	t := new(bart.Lite)
	for _, p := range list {
		t.Insert(netip.MustParsePrefix(p))
	}
	return t
}

// Guard decides which addresses may be sent to (design.md section 6,
// conventions.md section 9). It knows addresses, never names: a list of names
// rots. Safe for concurrent use once made.
type Guard struct {
	never    *bart.Lite // of nobody, or of everybody
	private  *bart.Lite // of somebody who may allow it
	allowed  *bart.Lite
	ends     *bart.Lite // network and broadcast addresses of what is allowed
	recorded *bart.Lite
	leases   *bart.Table[*Lease]
}

// NewGuard makes the guard of a run. allow are the private prefixes that the
// user answers for; recorded are the addresses that occur in the capture: the
// machines that suffered already.
func NewGuard(allow []netip.Prefix, recorded []netip.Addr) (*Guard, error) {
	g := &Guard{
		never: prefixes("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8"),
		private: prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "198.18.0.0/15",
			"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "fc00::/7", "fe80::/10", "2001:db8::/32", "3fff::/20", "2001:2::/48"),
		allowed: new(bart.Lite), ends: new(bart.Lite), recorded: new(bart.Lite), leases: new(bart.Table[*Lease]),
	}
	for _, p := range allow {
		if !p.IsValid() {
			return nil, refuse("--allow: not a prefix")
		}
		if p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return nil, refuse("--allow %v: wider than /%d", p, allowBits4)
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		p = p.Masked()
		least := allowBits6
		if p.Addr().Is4() {
			least = allowBits4
		}
		first := p.Addr()
		if first.IsLoopback() && (first.Is4() && p.Bits() >= 8 || p.Bits() == 128) {
			continue // free anyway
		}
		switch {
		case p.Bits() < least:
			return nil, refuse("--allow %v: wider than /%d; name the test network itself", p, least)
		case g.never.Contains(first):
			return nil, refuse("--allow %v: multicast, broadcast and reserved addresses are never sent to", p)
		case !g.private.Contains(first):
			return nil, refuse("--allow %v: public addresses are sent to with the target's own consent only (squall consent, run there)", p)
		}
		g.allowed.Insert(p)
		if first.Is4() && p.Bits() < 31 {
			g.ends.Insert(netip.PrefixFrom(first, 32))
			g.ends.Insert(netip.PrefixFrom(lastOf(p), 32))
		}
	}
	for _, a := range recorded {
		if a = plainAddr(a); a.IsValid() && !a.IsLoopback() {
			g.recorded.Insert(netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return g, nil
}

// lastOf is the last address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// plainAddr is the address that packets really go to: IPv4-mapped and NAT64
// addresses (RFC 6052, RFC 8215) are those of an IPv4 machine.
func plainAddr(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		b := a.As16()
		nat64 := [12]byte{0, 0x64, 0xff, 0x9b}
		local := [6]byte{0, 0x64, 0xff, 0x9b, 0, 1}
		if [12]byte(b[:12]) == nat64 || [6]byte(b[:6]) == local {
			return netip.AddrFrom4([4]byte(b[12:]))
		}
	}
	return a
}

// Trust adds the consent of a target: its address may be sent to while the
// lease lasts. Not to be called once the guard is in use.
func (g *Guard) Trust(l *Lease) {
	a := plainAddr(l.Addr)
	g.leases.Insert(netip.PrefixFrom(a, a.BitLen()), l)
}

// Closed says whether no leave whatever opens the address; a *Refusal if so.
func (g *Guard) Closed(a netip.Addr) error {
	real := plainAddr(a)
	switch {
	case !a.IsValid():
		return refuse("no address")
	case g.never.Contains(real):
		return refuse("%v: unspecified, multicast, broadcast and reserved addresses are never sent to", a)
	case g.recorded.Contains(real):
		return refuse("%v occurs in the capture: it is a machine of the outage, not a test node", a)
	case g.ends.Contains(real):
		return refuse("%v: network or broadcast address of an allowed prefix", a)
	}
	return nil
}

// Check says whether the address may be sent to now; a *Refusal if not. It is
// asked before every dial.
func (g *Guard) Check(a netip.Addr) error {
	if err := g.Closed(a); err != nil {
		return err
	}
	real := plainAddr(a)
	if a.IsLoopback() || g.allowed.Contains(real) { // NAT64 of a loopback address leaves this machine
		return nil
	}
	if l, ok := g.leases.Lookup(real); ok {
		return l.valid(time.Now())
	}
	if g.private.Contains(real) {
		return refuse("%v is private: allow its network with --allow CIDR (at most /%d, IPv6 /%d), or run `squall consent` on it", a, allowBits4, allowBits6)
	}
	return refuse("%v is public: only its own consent opens it (run `squall consent` on it, then use --consent PORT)", a)
}

// Lookup finds the addresses of a name, as net.Resolver.LookupNetIP does.
type Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// ParseTarget reads HOST:PORT and resolves the host once. What comes back is
// exactly what is dialled.
func ParseTarget(ctx context.Context, target string, lookup Lookup) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(target)
	if err != nil {
		return nil, fmt.Errorf("target %q: want HOST:PORT", target)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("target %q: want a port from 1 to 65535", target)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, uint16(port))}, nil
	}
	addrs, err := lookup(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", target, err)
	}
	var list []netip.AddrPort
	for _, a := range addrs {
		list = append(list, netip.AddrPortFrom(a, uint16(port)))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("target %q: the name has no address", target)
	}
	return list, nil
}

// Resolve resolves a target and checks every address it has: a name of which
// one address is outside is refused as a whole. The first address is the target.
func (g *Guard) Resolve(ctx context.Context, target string, lookup Lookup) (netip.AddrPort, error) {
	list, err := ParseTarget(ctx, target, lookup)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range list {
		if err := g.Check(a.Addr()); err != nil {
			var no *Refusal
			if errors.As(err, &no) {
				return netip.AddrPort{}, refuse("target %s: %s", target, no.Reason)
			}
			return netip.AddrPort{}, err
		}
	}
	return netip.AddrPortFrom(list[0].Addr().Unmap(), list[0].Port()), nil
}

const (
	// leasePath is where a target that consents is asked.
	leasePath = "/squall-consent"
	// leaseEvery is how often a lease is renewed, leaseLoss how long it stays
	// good without an answer: a target that is drowning may not be able to
	// say stop.
	leaseEvery = time.Second
	leaseLoss  = 3 * time.Second
	leaseMost  = 4096 // bytes of an answer
)

// Lease is a target's leave to be loaded.
type Lease struct {
	Addr    netip.Addr
	Until   time.Time
	MaxRate float64 // attempts per second
	seen    atomic.Int64
	lost    atomic.Bool
}

// leaseWords is a lease on the wire.
type leaseWords struct {
	Squall  int       `json:"squall_consent"`
	Nonce   string    `json:"nonce"`
	Until   time.Time `json:"until"`
	MaxRate float64   `json:"max_rate"`
}

func (l *Lease) valid(now time.Time) error {
	switch {
	case l.lost.Load():
		return refuse("%v: its consent was withdrawn", l.Addr)
	case now.After(l.Until):
		return refuse("%v: its consent ended at %s", l.Addr, l.Until.UTC().Format(time.RFC3339))
	case now.UnixNano()-l.seen.Load() > int64(leaseLoss):
		return refuse("%v: its consent was not confirmed for %v", l.Addr, leaseLoss)
	}
	return nil
}

// AskConsent asks a target for its lease, on the port where `squall consent`
// listens there. Nothing but this one request is sent.
func AskConsent(ctx context.Context, at netip.AddrPort) (*Lease, error) {
	l := &Lease{Addr: at.Addr()}
	if err := l.renew(ctx, at); err != nil {
		return nil, refuse("%v gives no consent: %v", at, err)
	}
	return l, nil
}

func (l *Lease) renew(ctx context.Context, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, leaseLoss)
	defer cancel()
	nonce := strconv.FormatUint(mix(uint64(time.Now().UnixNano())), 16)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+at.String()+leasePath+"?nonce="+nonce, nil)
	if err != nil {
		return err
	}
	// No proxy and no redirect: the answer is that of the address itself.
	web := http.Client{Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the consent is elsewhere") }}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var w leaseWords
	if err := json.NewDecoder(io.LimitReader(resp.Body, leaseMost)).Decode(&w); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || w.Squall != 1 || w.Nonce != nonce || !(w.MaxRate > 0) {
		return fmt.Errorf("the answer is no consent")
	}
	if time.Now().After(w.Until) {
		return fmt.Errorf("it ended at %s", w.Until.UTC().Format(time.RFC3339))
	}
	if l.seen.Load() == 0 { // a renewal may not widen what was agreed
		l.Until, l.MaxRate = w.Until, w.MaxRate
	} else if w.Until.Before(l.Until) || w.MaxRate < l.MaxRate {
		return fmt.Errorf("it was narrowed")
	}
	l.seen.Store(time.Now().UnixNano())
	return nil
}

// Keep renews the lease until ctx ends; when the target does not confirm it
// any more, the lease is lost for good and over is called.
func (l *Lease) Keep(ctx context.Context, at netip.AddrPort, over func(error)) {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.renew(ctx, at) // one lost answer is no end; valid counts the time
		if err := l.valid(time.Now()); err != nil && ctx.Err() == nil {
			l.lost.Store(true)
			over(err)
			return
		}
	}
}

// ConsentHandler is what `squall consent` serves on a target: its leave to be
// loaded until then with at most so many attempts per second.
func ConsentHandler(until time.Time, maxRate float64) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+leasePath, func(w http.ResponseWriter, r *http.Request) {
		if time.Now().After(until) {
			http.Error(w, "the consent has ended", http.StatusGone)
			return
		}
		nonce := r.URL.Query().Get("nonce")
		if len(nonce) > 64 {
			nonce = nonce[:64]
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(leaseWords{1, nonce, until, maxRate})
	})
	return mux
}

// Caps end a run; zero fields mean the defaults.
type Caps struct {
	MaxRate     float64       // attempts per second, 0 = 1,000
	MaxDuration time.Duration // 0 = 10 minutes
	MaxBytes    int64         // sent, 0 = 1 GiB
}

// The caps of a run that says nothing else (conventions.md section 9).
const (
	DefaultMaxRate     = 1000
	DefaultMaxDuration = 10 * time.Minute
	DefaultMaxBytes    = 1 << 30
)

func (c Caps) withDefaults() Caps {
	if !(c.MaxRate > 0) {
		c.MaxRate = DefaultMaxRate
	}
	if c.MaxDuration <= 0 {
		c.MaxDuration = DefaultMaxDuration
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	return c
}
