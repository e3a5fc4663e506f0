package replay

import (
	"testing"
	"time"
)

// TestUnseenRecovery: where no node came back a run never lets one come back
// sooner than was seen, and in half of the runs later than twice that.
func TestUnseenRecovery(t *testing.T) {
	x := nodeFit{recovery: waitMost, fallen: 2 * time.Minute}
	longer := 0
	for seed := range uint64(2000) {
		d := x.returns(seed)
		if d < x.fallen || d > waitMost {
			t.Fatalf("seed %d: %v", seed, d)
		}
		if d > 2*x.fallen {
			longer++
		}
	}
	if longer < 900 || longer > 1100 {
		t.Errorf("%d of 2000 are longer than twice what was seen", longer)
	}
	if x.fallen, x.recovery = 0, time.Minute; x.returns(1) != time.Minute {
		t.Error("a recovery that was seen is drawn")
	}
}

// TestLimitOfNodes: the load that nodes bear is told from falls after a whole
// second in service, not from those in the crowd that waited for them; one that
// goes on is a fall like the others while it is young, and given when it is not.
func TestLimitOfNodes(t *testing.T) {
	const second = int64(time.Second)
	fall := func(from, to int64, load int, short bool) spell {
		return spell{from: from * second, to: to * second, load: load, short: short, closed: true}
	}
	f := &fitted{nodes: []nodeFit{
		{spells: []spell{fall(100, 150, 7, false), fall(151, 201, 12, true), fall(202, 0, 11, true)}},
		{spells: []spell{fall(101, 151, 8, false), fall(152, 202, 14, true), fall(203, 0, 5, true)}},
		{spells: []spell{fall(102, 152, 7, false), fall(153, 203, 9, true)}},
		{spells: []spell{{from: 99 * second}}}, // went silent under no load
		{spells: []spell{fall(98, 0, 5, false)}},
	}}
	f.limits([]int{9, 6, 6, 3, 3}, 5, 230*second)
	x := &f.nodes[0] // it bore more in a moment that was miscounted: it fell all the same
	if x.protect < 7 || x.protect > 8 || x.protectLo < 5 || x.protectLo > 7 || x.recovery != 50*time.Second || x.fallen != 0 || x.silent {
		t.Errorf("%+v", x)
	}
	if !f.nodes[1].spells[2].byLoad || f.nodes[3].spells[0].byLoad || f.nodes[4].spells[0].byLoad {
		t.Errorf("falls under load: %v, %v, %v", f.nodes[1].spells[2].byLoad, f.nodes[3].spells[0].byLoad, f.nodes[4].spells[0].byLoad)
	}
	// Nobody came back.
	g := &fitted{nodes: []nodeFit{{spells: []spell{fall(100, 0, 61, false)}}, {spells: []spell{fall(110, 0, 60, false)}}}}
	g.limits([]int{50, 50}, 40, 220*second)
	if x := &g.nodes[1]; x.fallen != 2*time.Minute || x.protect < 59 || x.protect > 63 {
		t.Errorf("%+v", x)
	}
}
