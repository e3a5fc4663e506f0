package attempt

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"squall/dissect"
)

// scramble fills a record with values that a capture may hold, many of them zero.
func scramble(rng *rand.Rand) (r Record) {
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		switch {
		case rng.IntN(3) == 0:
		case f.CanInt():
			f.SetInt(rng.Int64N(1 << min(f.Type().Bits()-2, 61)))
		case f.CanUint():
			f.SetUint(rng.Uint64N(2))
		}
	}
	for i := range rng.IntN(len(r.History) + 1) {
		r.History[i] = 'A' + byte(i)
	}
	for _, e := range []*dissect.Endpoint{&r.Source, &r.Destination} {
		for i := range e.Addr {
			e.Addr[i] = byte(rng.Uint32())
		}
		if rng.IntN(2) == 0 {
			e.Addr = dissect.Addr4(e.Addr[:4])
		}
		e.Port = uint16(rng.Uint32())
	}
	r.Digest, r.Txn, r.ClientKey = rng.Uint64(), rng.Uint64()>>rng.IntN(64), rng.Uint64()*uint64(rng.IntN(2))
	r.Tunnel, r.Role, r.RoleSource = dissect.Tunnel(rng.IntN(int(dissect.NumTunnels))), dissect.Role(rng.IntN(int(dissect.NumRoles))), dissect.RoleSource(rng.IntN(int(dissect.NumRoleSources)))
	r.Outcome, r.Evidence = dissect.Outcome(rng.IntN(int(dissect.NumOutcomes))), dissect.Evidence(rng.IntN(int(dissect.NumEvidence)))
	r.Answer, r.SessionEnded = dissect.Answer(rng.IntN(int(dissect.NumAnswers))), dissect.SessionEnd(rng.IntN(int(dissect.NumSessionEnds)))
	r.HandshakeRTT -= int64(rng.IntN(2))
	return r
}

// TestPacked: what is packed comes out equal, and what is cut is noticed.
func TestPacked(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var b []byte
		var want []Record
		for range 500 {
			r := scramble(rng)
			want = append(want, r)
			b = appendRecord(b, &r)
		}
		u := unpacker{b: b}
		for i := range want {
			var got Record
			u.record(&got)
			if got != want[i] {
				t.Fatalf("seed %d record %d:\n got %+v\nwant %+v", seed, i, got, want[i])
			}
		}
		if len(u.b) != 0 || u.broken {
			t.Errorf("seed %d: %d bytes left, broken %v", seed, len(u.b), u.broken)
		}
		one := appendRecord(nil, &want[0])
		for n := range one {
			u := unpacker{b: one[:n]}
			var r Record
			if u.record(&r); !u.broken {
				t.Fatalf("%d of %d bytes read as a record", n, len(one))
			}
		}
	}
}

func FuzzPacked(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		r := scramble(rng)
		f.Add(appendRecord(nil, &r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u := unpacker{b: b}
		var r, again Record
		u.record(&r)
		if u.broken {
			return
		}
		first := appendRecord(nil, &r)
		u = unpacker{b: first}
		u.record(&again)
		if u.broken || again != r || !bytes.Equal(appendRecord(nil, &again), first) {
			t.Errorf("%+v packs and reads as %+v", r, again)
		}
	})
}
