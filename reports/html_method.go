package reports

// term is an entry of the page's glossary.
type term struct{ Name, Text string }

// method defines every word that the page uses. docs/tables.md has the columns.
func method() []term {
	return []term{
		{"transmission", "One packet of the request phase of an attempt: each SYN of one connection, each datagram of one transaction. A repeated SYN is no attempt of its own."},
		{"attempt", "One try by one client at one node, from its first transmission to its outcome."},
		{"outcome", "accepted: the application said yes, or, where its protocol is unknown, the handshake is proven and the node sent at least one byte, or neither side sent anything for 5 s. stalled: the transport connected and the client gave up before a yes. dropped: connected or accepted, then ended by the node within 5 s without use. refused: RST, ICMP port unreachable, or an explicit no. unreachable: ICMP net, host or prohibited. throttled: an explicit busy or retry later. timeout: nothing came back. unknown: the capture cannot tell."},
		{"intent", "One wish of one client to be attached to one service: the chain of attempts from the first until one is accepted or the client goes quiet for longer than its retry gaps explain (120 s until they are learned, then three times their 95th percentile, from 30 s to 15 min)."},
		{"relation", "What an attempt is to its intent: first; retry (same node); failover (another node); parallel (overlapping twin of a dial, in no ratio); refresh (within a living session, in no ratio); reattach (the first attempt of a client whose session was lost)."},
		{"A, amplification", "Attempts divided by intents. 1 means that every intent took one try."},
		{"retry share", "Retries and failovers divided by attempts, 1 − 1/A: near 1, the load feeds itself."},
		{"surge", "Intents in a window of 10 s divided by the median of the calm windows. A and surge are told apart because many intents and many tries for one intent need different cures."},
		{"failure", "Every decided outcome but accepted; unknown outcomes are not decided."},
		{"late answer", "An answer that came after the client had given up on the attempt or begun the next one. The late-answer ratio is late answers divided by all answers: the work of the nodes that was for nothing."},
		{"goodput, knee", "Goodput is accepted attempts a second. The knee is the best rate of accepts that the service sustained; load beyond it brings no more, and often less."},
		{"attached", "Clients believed to hold a session at that time."},
		{"node, service", "A node is a server-side endpoint, address and port. A service is the set of nodes that can serve the same intent: protocol and role, or, for an unknown protocol, transport and port."},
		{"client", "An identity inside the protocol where there is one, else an address. The column client_id_level says which."},
		{"down, self-protecting, overloaded, back", "down: the node gave no sign of life, from its first RST, ICMP or close that a second client confirmed. self-protecting: it refuses or throttles on purpose. overloaded: it answers, too late for most. back: it serves again."},
		{"generation", "Place in a cascade. Generation 0 fell before any load of others came; a node of generation k fell with load from nodes of generation k − 1: at least 30 % of its excess came from them, and it carried at least twice its calm load."},
		{"migration", "An intent that failed at one node and went on at another. Causal ones fed a node's excess in the minute before it fell. From one tap, causal means that time and amount fit, not more."},
		{"retry policy", "How the waits between attempts grow, inferred from the gaps: immediate, fixed, linear (a + b k), quadratic (a + b k²), exponential (a b^(k−1)), server_directed (as the server said). The best family is the one with the lowest Bayesian information criterion over the medians of the gaps after the k-th failure; jitter comes from their spread. 30 gaps are needed to name a family, 200 for the jitter."},
		{"synchrony, herd", "Rayleigh's R of the phases of the retries in their common period; 1 is perfect step. A herd is R over 0.3 with n R² over 7."},
		{"odds ratio, early and late", "Early: the odds that a member of the version lost its session from 60 s before to 30 s after the onset, against the odds of all others. Late: the same for failing at all during the finding. With 95 % intervals, 0.5 added to each cell. A version is associated with the crash where the early interval lies over 1 and the one-sided Fisher p, corrected after Benjamini and Hochberg, is at most 0.01. It is never called the cause: clients of one version also live in one place and on one schedule."},
		{"finding, verdict", "A finding is a stretch of time on one service with a class and the numbers behind it. Windows of 10 s are judged each second; a storm is 10 s in a row with all criteria met. The verdict is the finding that harmed most clients, gravity breaking ties."},
		{"classes", "From light to grave: calm, insufficient evidence, scan, single offender, flash crowd (many new clients, served), refresh surge, mass reconnect (known clients, all at once), path loss (the network loses, the nodes are well), partial outage (failures, little retry), SYN flood, retry storm."},
		{"confidence", "high, medium or low: lowered by what the capture lacks, such as one direction, calm times before, or clients (a capture with fewer than three is one client's view)."},
		{"score of a hypothesis", "How much of the evidence that it asks for is there, weighted; what the capture cannot show counts half. All of it is listed: for, against, and not seen. Scores do not add up to one: two things can be true."},
		{"ledger", "Every packet read lands in exactly one bucket, and the buckets add up to the packets read: filtered, duplicate, undecodable link, malformed, fragment, cut, attempt, session, other."},
	}
}
