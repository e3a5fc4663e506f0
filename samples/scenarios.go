package samples

import (
	"slices"
	"time"
)

const (
	second = time.Second
	minute = time.Minute
)

func base(name, about string) Scenario {
	return Scenario{Name: name, About: about, Protocol: "tcp", Nodes: 10, Clients: 2000, Duration: 10 * minute, Trigger: 5 * minute,
		Spread: 60 * second, Policy: Policy{Family: "fixed", Base: second, Order: "random", Timeout: second}}
}

// queue is the setting of the small server model: one node of 100 a second
// that loses 70 % of its capacity for ten seconds.
func queue(name, about string, rate float64, p Policy) Scenario {
	s := base(name, about)
	s.Nodes, s.Clients, s.Intents, s.Mu, s.Queue = 1, 20000, rate, 100, 2000
	s.Hold = 30 * second
	s.Duration, s.Trigger = 8*minute, 3*minute
	p.Timeout, p.Order = second, "sticky"
	s.Policy = p
	s.Script = []Step{{At: s.Trigger, Do: "slow", Nodes: []int{0}, Factor: 0.3}, {At: s.Trigger + 10*second, Do: "full", Nodes: []int{0}}}
	return s
}

func with(s Scenario, change func(*Scenario)) Scenario {
	change(&s)
	return s
}

// Scenarios are the simulated outages and healthy hours by name. "s" outages,
// "n" what must not be called a storm, or is one in disguise.
func Scenarios() []Scenario {
	healthy := func(name, about string) Scenario {
		return with(base(name, about), func(s *Scenario) { s.Intents, s.Hold, s.Policy.Timeout = 20, 30*second, 5*second })
	}
	s1 := with(base("s1", "3 of 10 supernodes die with a version that half of the clients run; the rest falls in a cascade"), func(s *Scenario) {
		s.Protocol = "gnutella"
		s.Versions = []Version{{Name: "LimeWire/5.0.0", Share: 0.5, Crash: 0.4}, {Name: "LimeWire/4.2.1", Share: 0.5, Crash: 0}}
		s.Mu, s.Queue, s.ProtectAt, s.Recovery = 3, 100, 14, 40*second
		s.Policy.Timeout = 2500 * time.Millisecond
		s.Spread, s.Keepalive = 4*minute, 6*second
		s.Duration, s.Trigger = 10*minute, 5*minute
		s.Script = []Step{{At: 5 * minute, Do: "crash"}, {At: 5*minute + 5*second, Do: "down", Nodes: []int{0, 1, 2}}}
	})
	s2 := queue("s2", "capacity down to 30 % for 10 s; three tries a second apart keep the node collapsed", 50, Policy{Family: "fixed", Base: second, Limit: 3})
	all := []Scenario{
		s1, s2,
		queue("s3", "the same loss at a third of the load: recovers", 30, Policy{Family: "fixed", Base: second, Limit: 3}),
		queue("s4", "as s2 with exponential back-off and full jitter, unlimited", 50, Policy{Family: "exponential", Base: second, Factor: 2, Cap: 32 * second, Jitter: "full"}),
		queue("s5", "as s2 with a 10 % retry budget", 50, Policy{Family: "fixed", Base: second, Limit: 3, Budget: 0.1}),
		with(base("s6", "all clients restart within 20 s"), func(s *Scenario) {
			s.Mu = 400
			s.Policy = Policy{Family: "exponential", Base: second, Factor: 2, Cap: 30 * second, Jitter: "full", Timeout: 5 * second, Order: "random"}
			s.Script = []Step{{At: 5 * minute, Do: "restart", Within: 20 * second}}
		}),
		with(base("s7", "a login server that takes 8 s; clients wait 5 s, linear back-off, 10 tries"), func(s *Scenario) {
			s.Protocol, s.Nodes, s.Mu, s.Queue, s.Intents = "sip", 1, 100, 800, 50
			s.Hold, s.Clients = 30*second, 20000
			s.Policy = Policy{Family: "linear", Base: 100 * time.Millisecond, Step: 100 * time.Millisecond, Limit: 10, Timeout: 5 * second, Order: "sticky"}
			s.Script = []Step{{At: 5 * minute, Do: "slow", Nodes: []int{0}, Factor: 0.3}}
		}),
		with(base("s8", "three nodes close, one accepts and then resets; clients forget their back-off on every connect"), func(s *Scenario) {
			s.Nodes, s.Mu, s.Queue, s.Overload, s.Intents, s.Hold, s.Clients = 4, 60, 20, "reset", 40, 30*second, 8000
			s.Policy = Policy{Family: "exponential", Base: second, Factor: 2, Cap: 60 * second, Timeout: 5 * second, ResetOnConnect: true, Order: "random"}
			s.Script = []Step{{At: 5 * minute, Do: "slow", Nodes: []int{0}, Factor: 0.1}, {At: 5 * minute, Do: "close", Nodes: []int{1, 2, 3}}}
		}),
		with(base("s9", "nodes down, a fleet without jitter: every 10 s a herd"), func(s *Scenario) {
			s.Nodes = 2
			s.Policy = Policy{Family: "fixed", Base: 10 * second, Timeout: 2 * second, Order: "sticky"}
			s.Script = []Step{{At: 5 * minute, Do: "close", Nodes: []int{0, 1}}}
		}),
		with(base("s10", "domino: the clients of a fallen node go to the next one, which protects itself, and so on"), func(s *Scenario) {
			s.Protocol, s.Mu, s.Queue, s.ProtectAt, s.Recovery = "gnutella", 40, 400, 60, 10*minute
			s.Policy = Policy{Family: "fixed", Base: 2 * second, Timeout: second, Order: "round_robin"}
			s.Script = []Step{{At: 5 * minute, Do: "close", Nodes: []int{0}}}
		}),
		with(base("s11", "service restored, then down again"), func(s *Scenario) {
			s.Nodes = 3
			s.Policy = Policy{Family: "fixed", Base: 5 * second, Timeout: 2 * second, Order: "random"}
			s.Script = []Step{{At: 4 * minute, Do: "close", Nodes: []int{0, 1, 2}}, {At: 6 * minute, Do: "up", Nodes: []int{0, 1, 2}},
				{At: 7 * minute, Do: "close", Nodes: []int{0, 1, 2}}}
		}),
		with(base("s12", "nodes answer 503 with Retry-After 30, clients obey"), func(s *Scenario) {
			s.Protocol, s.Nodes, s.Mu, s.Queue, s.Overload, s.RetryAfter, s.Intents = "sip", 1, 60, 30, "throttle", 30*second, 40
			s.Hold, s.Clients = 30*second, 8000
			s.Policy = Policy{Family: "server", Base: second, Timeout: 5 * second, Order: "sticky"}
			s.Script = []Step{{At: 5 * minute, Do: "slow", Nodes: []int{0}, Factor: 0.4}, {At: 7 * minute, Do: "full", Nodes: []int{0}}}
		}),
		with(base("s13", "quadratic back-off, 5 s + k² s, at most 300 s"), func(s *Scenario) {
			s.Nodes, s.Duration = 3, 15*minute
			s.Policy = Policy{Family: "quadratic", Base: 5 * second, Step: second, Cap: 300 * second, Timeout: 2 * second, Order: "round_robin"}
			s.Script = []Step{{At: 5 * minute, Do: "close", Nodes: []int{0, 1, 2}}}
		}),
		with(base("s14", "jitter applied before the cap"), func(s *Scenario) {
			s.Nodes, s.Clients = 2, 500
			s.Policy = Policy{Family: "exponential", Base: 500 * time.Millisecond, Factor: 2, Cap: 2 * second, Jitter: "full", JitterBeforeCap: true, Timeout: second, Order: "sticky"}
			s.Script = []Step{{At: 5 * minute, Do: "close", Nodes: []int{0, 1}}}
		}),
		with(healthy("n1", "flash crowd: ten times the clients, all served"), func(s *Scenario) { s.Clients, s.Burst = 20000, 10 }),
		with(healthy("n2", "spoofed SYN flood"), func(s *Scenario) { s.Flood = 1000; s.Duration = 6 * minute }),
		with(healthy("n3", "port scan from three hosts"), func(s *Scenario) { s.Scan = 100 }),
		with(healthy("n4", "one broken host tries once a second"), func(s *Scenario) { s.Broken = true }),
		with(healthy("n5", "SIP registrations refreshed every minute"), func(s *Scenario) {
			s.Protocol, s.Intents, s.Hold, s.Refresh, s.Clients = "sip", 0, 0, minute, 500
		}),
		with(healthy("n6", "300 users behind one NAT"), func(s *Scenario) { s.NAT, s.Clients = true, 300 }),
		with(healthy("n7", "5 % of packets missing at the tap"), func(s *Scenario) { s.Tap.Loss = 0.05 }),
		with(healthy("n8", "20 % path loss, nodes healthy"), func(s *Scenario) {
			s.PathLoss = 0.2
			s.Policy = Policy{Family: "exponential", Base: second, Factor: 2, Cap: 30 * second, Timeout: 5 * second, Order: "random"}
		}),
		with(s2, func(s *Scenario) {
			s.Name, s.About, s.Tap = "n9", "s2 with a hole of 90 s in the capture", Tap{GapAt: 4 * minute, GapFor: 90 * second}
		}),
		with(s2, func(s *Scenario) {
			s.Name, s.About, s.Tap = "n10", "s2 with a clock step of one hour", Tap{StepAt: 5 * minute, StepBy: time.Hour}
		}),
		with(s2, func(s *Scenario) { s.Name, s.About, s.Tap.Side = "n11", "s2, packets of the clients only", "client" }),
		with(s2, func(s *Scenario) { s.Name, s.About, s.Tap.Side = "n12", "s2, packets of the nodes only", "server" }),
		with(s2, func(s *Scenario) {
			s.Name, s.About = "n13", "s2, captured from the middle of the storm on"
			s.Tap = Tap{GapAt: 0, GapFor: 4 * minute}
		}),
		with(healthy("n14", "every packet captured twice"), func(s *Scenario) { s.Tap.Duplicate = true }),
		with(healthy("n15", "two parallel dials for every intent"), func(s *Scenario) { s.Dials = 2 }),
		with(healthy("n16", "SIP, every REGISTER challenged"), func(s *Scenario) { s.Protocol, s.Challenge = "sip", true }),
		with(base("n17", "a dead node, three SYNs and no second attempt"), func(s *Scenario) {
			s.Intents, s.Hold, s.Clients = 20, 30*second, 8000
			s.Policy = Policy{Family: "none", Timeout: 6 * second}
			s.Script = []Step{{At: 5 * minute, Do: "down", Nodes: []int{0, 1, 2, 3, 4, 5, 6}}}
		}),
		with(healthy("n18", "load that doubles over half an hour"), func(s *Scenario) { s.Duration, s.Growth = 30*minute, 2 }),
		with(s2, func(s *Scenario) { s.Name, s.About, s.Tap.Snaplen = "n20", "s2 with a snapshot length of 64", 64 }),
		with(s1, func(s *Scenario) {
			s.Name, s.About = "skype-2010", "the outage of December 2010 in small, spoken in Gnutella, which shows versions: a client bug takes two of eight supernodes, survivors protect themselves, mega-supernodes end it"
			s.Nodes, s.Clients, s.Duration, s.Trigger = 8, 800, 9*minute, 3*minute
			s.Versions = []Version{{Name: "Skype/5.0.0.152", Share: 0.5, Crash: 0.4}, {Name: "Skype/4.2.0.187", Share: 0.5, Crash: 0}}
			s.Mu, s.Queue, s.ProtectAt, s.Recovery = 3, 60, 7, 50*second
			s.Spread = 150 * second
			s.Script = []Step{{At: 3 * minute, Do: "crash"}, {At: 3*minute + 4*second, Do: "down", Nodes: []int{0, 1}},
				{At: 6 * minute, Do: "add", Factor: 2}}
		}),
		with(base("outage", "a small outage for a first look: 3 nodes, one dies, 60 clients try once a second"), func(s *Scenario) {
			s.Protocol, s.Nodes, s.Clients, s.Duration, s.Trigger, s.Spread = "sip", 3, 60, 2*minute, 40*second, 20*second
			s.Refresh = 20 * second
			s.Policy = Policy{Family: "fixed", Base: second, Timeout: second, Order: "round_robin"}
			s.Versions = []Version{{Name: "Phone/2.1", Share: 0.6, Crash: 0}, {Name: "Phone/1.9", Share: 0.4, Crash: 0}}
			s.Script = []Step{{At: 40 * second, Do: "close", Nodes: []int{0, 1, 2}}, {At: 90 * second, Do: "up", Nodes: []int{0, 1, 2}}}
		}),
		with(s1, func(s *Scenario) {
			s.Name, s.About, s.Pieces = "n19", "s1 in 24 files, their names shuffled; -w names a directory", 24
		}),
		with(base("monitored", "nodes go and come back, and three monitors check them at fixed intervals all the time"), func(s *Scenario) {
			s.Nodes, s.Clients, s.Monitors, s.Duration, s.Trigger = 3, 400, 3, 6*minute, 2*minute
			s.Policy = Policy{Family: "fixed", Base: 5 * second, Timeout: 2 * second, Order: "random"}
			s.Script = []Step{{At: 2 * minute, Do: "close", Nodes: []int{0, 1, 2}}, {At: 4 * minute, Do: "up", Nodes: []int{0, 1, 2}}}
		}),
		with(base("n2n", "n2n: three supernodes die silently, one comes back; edges ask every 4 s for ever, four times at each"), func(s *Scenario) {
			s.Protocol, s.Nodes, s.Clients, s.Duration, s.Trigger, s.Spread = "n2n", 3, 300, 6*minute, 2*minute, 60*second
			s.Policy = Policy{Family: "fixed", Base: 2 * second, Timeout: 2 * second, Order: "round_robin", PerNode: 4}
			s.Script = []Step{{At: s.Trigger, Do: "down", Nodes: []int{0, 1, 2}}, {At: s.Trigger + 90*second, Do: "up", Nodes: []int{2}}}
		}),
		with(base("skype-ladder", "four of six supernodes go; clients climb UDP, host:port, 443, 80, node after node; the rest refuses"), func(s *Scenario) {
			s.Protocol, s.Nodes, s.Clients, s.Duration, s.Trigger, s.Spread = "skype", 6, 400, 6*minute, 2*minute, 60*second
			s.Mu, s.Queue, s.Overload, s.Firewalled = 2, 6, "throttle", 0.3
			s.Policy = Policy{Family: "fixed", Base: 5 * second, Timeout: 5 * second, Order: "round_robin"}
			s.Script = []Step{{At: s.Trigger, Do: "close", Nodes: []int{0, 1, 2, 3}}, {At: s.Trigger + 2*minute, Do: "up", Nodes: []int{0, 1, 2, 3}}}
		}),
		with(base("app-flood", "150 machines are served, close and come again at once, for a minute; who else wants in is served as before"), func(s *Scenario) {
			s.Intents, s.Hold, s.Policy.Timeout, s.Nodes = 20, 30*second, 5*second, 4
			s.Duration = 7 * minute
			s.Script = []Step{{At: 5 * minute, Do: "bots", Factor: 150, Within: minute}}
		}),
		with(base("refresh-surge", "a new setting lets SIP clients register every 6 s instead of every minute; nobody is lost"), func(s *Scenario) {
			s.Protocol, s.Refresh, s.Clients, s.Nodes, s.Spread = "sip", minute, 500, 4, 30*second
			s.Duration, s.Trigger = 8*minute, 4*minute
			s.Script = []Step{{At: 4 * minute, Do: "refresh", Within: 6 * second}}
		}),
		with(base("rollout", "a version that does not back off spreads over the clients; when the nodes stumble for 15 s, its retries keep them down"), func(s *Scenario) {
			s.Protocol, s.Nodes, s.Clients, s.Mu, s.Queue = "gnutella", 1, 12000, 60, 600
			s.Intents, s.Hold = 30, 30*second
			s.Policy = Policy{Family: "exponential", Base: 2 * second, Factor: 2, Cap: 60 * second, Jitter: "full", Timeout: 3 * second, Order: "sticky"}
			s.Versions = []Version{{Name: "LimeWire/4.2.1", Share: 1}, {Name: "LimeWire/5.0.0",
				Policy: &Policy{Family: "fixed", Base: second, Timeout: 2 * second, Order: "sticky"}}}
			s.Duration, s.Trigger = 9*minute, 6*minute
			s.Script = []Step{{At: minute, Do: "rollout", Within: 12 * minute}, {At: 6 * minute, Do: "slow", Nodes: []int{0}, Factor: 0.2},
				{At: 6*minute + 15*second, Do: "full", Nodes: []int{0}}}
		}),
		with(base("filter", "a full connection table before three nodes lets in nobody new for two minutes; the sessions that stand live on"), func(s *Scenario) {
			s.Nodes, s.Clients, s.Intents, s.Hold = 3, 4000, 15, 60*second
			s.Policy = Policy{Family: "exponential", Base: second, Factor: 2, Cap: 20 * second, Jitter: "equal", Timeout: 4 * second, Order: "random"}
			s.Duration = 9 * minute
			s.Script = []Step{{At: 5 * minute, Do: "shut", Nodes: []int{0, 1, 2}}, {At: 7 * minute, Do: "open", Nodes: []int{0, 1, 2}}}
		}),
	}
	for i := range all {
		all[i].Expect = verdicts[all[i].Name]
	}
	return all
}

// verdicts are the classes of which one is right, by scenario.
var verdicts = map[string][]string{
	"s1": {"retry_storm"}, "s2": {"retry_storm"}, "s3": {"calm", "partial_outage"}, "s4": {"retry_storm"}, "s5": {"partial_outage"},
	"s6": {"mass_reconnect"}, "s7": {"retry_storm"}, "s8": {"retry_storm"}, "s9": {"retry_storm"}, "s10": {"retry_storm"},
	"s11": {"retry_storm"}, "s12": {"partial_outage"}, "s13": {"retry_storm"}, "s14": {"retry_storm"},
	"n1": {"flash_crowd"}, "n2": {"syn_flood"}, "n3": {"scan"}, "n4": {"single_offender"}, "n5": {"calm"}, "n6": {"calm"},
	"n7": {"calm", "insufficient_evidence"}, "n8": {"path_loss"}, "n9": {"retry_storm"}, "n10": {"retry_storm"}, "n11": {"retry_storm"},
	"n12": {"insufficient_evidence"}, "n13": {"retry_storm"}, "n14": {"calm"}, "n15": {"calm"}, "n16": {"calm"}, "n17": {"partial_outage"},
	"n18": {"calm"}, "n19": {"retry_storm"}, "n20": {"retry_storm"},
	"skype-2010": {"retry_storm"}, "outage": {"retry_storm"}, "n2n": {"retry_storm"}, "skype-ladder": {"retry_storm"}, "monitored": {"retry_storm"},
	"app-flood": {"application_flood"}, "refresh-surge": {"refresh_surge"}, "rollout": {"retry_storm"}, "filter": {"retry_storm"},
}

// Find is the scenario of that name.
func Find(name string) (Scenario, bool) {
	all := Scenarios()
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		return Scenario{}, false
	}
	return all[i], true
}
