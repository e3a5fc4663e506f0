package storm

import (
	"strconv"
	"testing"

	"squall/dissect"
)

// TestBusyNodesStay: where there are more nodes than have a life line, a time line or
// migrations of their own, those that many try keep theirs.
func TestBusyNodesStay(t *testing.T) {
	const busy, tries, others = 8, 400, maxPulses + 5000
	node := func(i int) dissect.Endpoint {
		return dissect.Endpoint{Addr: dissect.Addr4([]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), Port: 33033}
	}
	known := func(at dissect.Endpoint, _ uint8) (int64, bool) {
		if at.Addr[13] == 0 && at.Addr[14] == 0 && at.Addr[15] < busy {
			return tries, true
		}
		return 1, true
	}
	s := NewState(Config{Known: known})
	number := 0
	client := func(nodes ...dissect.Endpoint) {
		number++
		s.Client(&dissect.Client{ID: strconv.Itoa(number)})
		for i, at := range nodes {
			start := int64(number)*1e6 + int64(i)*1e9
			a := dissect.Attempt{ID: uint64(number), Start: start, End: start + 1e6, Destination: at, Proto: dissect.ProtoTCP, Service: "tcp/33033", Number: int32(i + 1), Transmissions: 1,
				Relation: dissect.RelationFirst, Outcome: dissect.OutcomeRefused, Answer: dissect.AnswerRST}
			if i > 0 {
				a.Relation = dissect.RelationFailover
			}
			s.Attempt(&a)
		}
	}
	for i := range others {
		if client(node(1<<16 + i)); i < maxEdges+5000 {
			client(node(1<<16+i), node(1<<16+i+1))
		}
		if i < tries*busy {
			client(node(i%busy), node((i+1)%busy))
		}
	}
	s.finishClient()
	sc := s.scenes.by["tcp/33033"]
	if s.keep == ^uint64(0) || s.scenes.keep.pulses == ^uint64(0) || s.scenes.keep.edges == ^uint64(0) {
		t.Fatalf("nothing is over its ceiling: %x, %+v", s.keep, s.scenes.keep)
	}
	for i := range busy {
		k := nodeKey{"tcp/33033", node(i), dissect.ProtoTCP}
		if n := s.nodes[k]; n == nil || len(n.pages) == 0 {
			t.Errorf("node %d has no time line", i)
		}
		if sc.pulses[k] == nil {
			t.Errorf("node %d has no life line", i)
		}
		if sc.edges[edge{k, nodeKey{"tcp/33033", node((i + 1) % busy), dissect.ProtoTCP}}] == nil {
			t.Errorf("nobody goes from node %d", i)
		}
	}
}
