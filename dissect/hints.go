package dissect

// Hints are what the user knows better than the packets.
type Hints struct {
	Nodes map[Endpoint]NodeHint
	// Services regroups: from the service squall found to the one wanted.
	Services map[string]string
}

// NodeHint overrides what a node is; zero fields say nothing.
type NodeHint struct {
	Role    Role
	Service string
}
