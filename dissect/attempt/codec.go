package attempt

import (
	"bytes"
	"encoding/binary"

	"squall/dissect"
)

// Presence bits of the packed form: most records lack most of these.
const (
	hasSource4 = 1 << iota
	hasDestination4
	hasAnswered
	hasSessionEnd
	hasRTT
	hasRetryAfter
	hasLifetime
	hasGaveUp
	hasClient
	hasProtocol
	hasVersion
	hasTS
	hasTunnel
	hasBehind
	hasServerName
	hasHeard
	hasAgain
	hasOver
	hasLost
)

// appendRecord packs a record into some 90 bytes.
func appendRecord(b []byte, r *Record) []byte {
	var has uint64
	set := func(on bool, bit uint64) {
		if on {
			has |= bit
		}
	}
	set(r.Source.Addr.Is4(), hasSource4)
	set(r.Destination.Addr.Is4(), hasDestination4)
	set(r.AnsweredAt != 0, hasAnswered)
	set(r.SessionEnd != 0 || r.SessionEnded != 0, hasSessionEnd)
	set(r.HandshakeRTT != -1, hasRTT)
	set(r.RetryAfter != 0, hasRetryAfter)
	set(r.Lifetime != 0, hasLifetime)
	set(r.GaveUp != 0, hasGaveUp)
	set(r.ClientKey != 0 || r.ClientName != 0, hasClient)
	set(r.Protocol|r.Op|r.Rung != 0, hasProtocol)
	set(r.Version != 0, hasVersion)
	set(r.ServerName|r.JA3 != 0, hasServerName)
	set(r.TSBase != 0, hasTS)
	set(r.TunnelID != 0 || r.VLAN != 0 || r.Tunnel != 0, hasTunnel)
	set(r.Behind != (dissect.Addr{}), hasBehind)
	set(r.LastHeard != 0, hasHeard)
	set(r.HeardAgain|r.AgainFrame != 0, hasAgain)
	set(r.OverFrame != 0, hasOver)
	set(r.LostBytes != 0, hasLost)
	b = binary.AppendUvarint(b, has)
	b = appendAddr(b, &r.Source.Addr, has&hasSource4 != 0)
	b = binary.LittleEndian.AppendUint16(b, r.Source.Port)
	b = appendAddr(b, &r.Destination.Addr, has&hasDestination4 != 0)
	b = binary.LittleEndian.AppendUint16(b, r.Destination.Port)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Start))
	b = binary.LittleEndian.AppendUint64(b, r.Digest)
	b = binary.AppendVarint(b, r.End-r.Start)
	b = binary.AppendVarint(b, r.LastSeen-r.Start)
	b = binary.AppendUvarint(b, r.Txn)
	for _, n := range [...]int64{r.SourcePackets, r.SourceBytes, r.DestinationPackets, r.DestinationBytes,
		r.FirstFrame, r.LastFrame - r.FirstFrame, r.FirstOffset, int64(r.Transmissions)} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(r.File))
	b = append(b, r.Proto, byte(r.Role), byte(r.RoleSource), byte(r.Outcome), byte(r.Evidence), byte(r.Answer), byte(r.Flags))
	letters := bytes.IndexByte(r.History[:], 0)
	if letters < 0 {
		letters = len(r.History)
	}
	b = append(b, byte(letters))
	b = append(b, r.History[:letters]...)
	if has&hasAnswered != 0 {
		b = binary.AppendVarint(b, r.AnsweredAt-r.Start)
	}
	if has&hasSessionEnd != 0 {
		b = binary.AppendVarint(b, r.SessionEnd-r.Start)
		b = append(b, byte(r.SessionEnded))
	}
	if has&hasRTT != 0 {
		b = binary.AppendVarint(b, r.HandshakeRTT)
	}
	if has&hasRetryAfter != 0 {
		b = binary.AppendVarint(b, r.RetryAfter)
	}
	if has&hasLifetime != 0 {
		b = binary.AppendVarint(b, r.Lifetime)
	}
	if has&hasGaveUp != 0 {
		b = binary.AppendVarint(b, r.GaveUp-r.Start)
	}
	if has&hasClient != 0 {
		b = binary.LittleEndian.AppendUint64(b, r.ClientKey)
		b = binary.AppendUvarint(b, uint64(r.ClientName))
	}
	if has&hasProtocol != 0 {
		b = binary.AppendUvarint(b, uint64(r.Protocol))
		b = binary.AppendUvarint(b, uint64(r.Op))
		b = binary.AppendUvarint(b, uint64(r.Rung))
	}
	if has&hasVersion != 0 {
		b = binary.AppendUvarint(b, uint64(r.Version))
	}
	if has&hasServerName != 0 {
		b = binary.AppendUvarint(b, uint64(r.ServerName))
		b = binary.AppendUvarint(b, uint64(r.JA3))
	}
	if has&hasTS != 0 {
		b = binary.AppendVarint(b, r.TSBase)
	}
	if has&hasBehind != 0 {
		b = append(b, r.Behind[:]...)
	}
	if has&hasTunnel != 0 {
		b = binary.AppendUvarint(b, uint64(r.TunnelID))
		b = binary.AppendUvarint(b, uint64(r.VLAN))
		b = append(b, byte(r.Tunnel))
	}
	if has&hasHeard != 0 {
		b = binary.AppendVarint(b, r.LastHeard-r.Start)
	}
	if has&hasAgain != 0 {
		b = binary.AppendVarint(b, r.HeardAgain-r.Start)
		b = binary.AppendVarint(b, r.AgainFrame-r.FirstFrame)
	}
	if has&hasOver != 0 {
		b = binary.AppendVarint(b, r.OverFrame-r.FirstFrame)
	}
	if has&hasLost != 0 {
		b = binary.AppendVarint(b, r.LostBytes)
	}
	return b
}

func appendAddr(b []byte, a *dissect.Addr, is4 bool) []byte {
	if is4 {
		return append(b, a[12:]...)
	}
	return append(b, a[:]...)
}

// unpacker reads packed records. Past the end it gives zeros and is broken.
type unpacker struct {
	b      []byte
	broken bool
}

func (u *unpacker) take(n int) []byte {
	if n > len(u.b) {
		u.b, u.broken = nil, true
		return make([]byte, n)
	}
	v := u.b[:n]
	u.b = u.b[n:]
	return v
}

func (u *unpacker) byte() byte {
	if len(u.b) == 0 {
		u.broken = true
		return 0
	}
	v := u.b[0]
	u.b = u.b[1:]
	return v
}

func (u *unpacker) fixed() uint64 { return binary.LittleEndian.Uint64(u.take(8)) }
func (u *unpacker) port() uint16  { return binary.LittleEndian.Uint16(u.take(2)) }

func (u *unpacker) number() uint64 {
	v, n := binary.Uvarint(u.b)
	if n <= 0 {
		u.b, u.broken = nil, true
		return 0
	}
	u.b = u.b[n:]
	return v
}

func (u *unpacker) signed() int64 {
	v := u.number()
	return int64(v>>1) ^ -int64(v&1)
}

func (u *unpacker) addr(is4 bool) (a dissect.Addr) {
	if is4 {
		return dissect.Addr4(u.take(4))
	}
	return dissect.Addr(u.take(16))
}

// record is the inverse of appendRecord.
func (u *unpacker) record(r *Record) {
	has := u.number()
	*r = Record{HandshakeRTT: -1}
	r.Source.Addr = u.addr(has&hasSource4 != 0)
	r.Source.Port = u.port()
	r.Destination.Addr = u.addr(has&hasDestination4 != 0)
	r.Destination.Port = u.port()
	r.Start = int64(u.fixed())
	r.Digest = u.fixed()
	r.End = r.Start + u.signed()
	r.LastSeen = r.Start + u.signed()
	r.Txn = u.number()
	r.SourcePackets, r.SourceBytes = u.signed(), u.signed()
	r.DestinationPackets, r.DestinationBytes = u.signed(), u.signed()
	r.FirstFrame = u.signed()
	r.LastFrame = r.FirstFrame + u.signed()
	r.FirstOffset = u.signed()
	r.Transmissions = int32(u.signed())
	r.File = uint32(u.number())
	r.Proto = u.byte()
	r.Role = min(dissect.Role(u.byte()), dissect.NumRoles-1)
	r.RoleSource = min(dissect.RoleSource(u.byte()), dissect.NumRoleSources-1)
	r.Outcome = min(dissect.Outcome(u.byte()), dissect.NumOutcomes-1)
	r.Evidence = min(dissect.Evidence(u.byte()), dissect.NumEvidence-1)
	r.Answer = min(dissect.Answer(u.byte()), dissect.NumAnswers-1)
	r.Flags = RecordFlags(u.byte())
	copy(r.History[:], u.take(min(int(u.byte()), len(r.History))))
	if i := bytes.IndexByte(r.History[:], 0); i >= 0 { // letters end at the first zero, whatever a damaged file says
		clear(r.History[i:])
	}
	if has&hasAnswered != 0 {
		r.AnsweredAt = r.Start + u.signed()
	}
	if has&hasSessionEnd != 0 {
		r.SessionEnd = r.Start + u.signed()
		r.SessionEnded = min(dissect.SessionEnd(u.byte()), dissect.NumSessionEnds-1)
	}
	if has&hasRTT != 0 {
		r.HandshakeRTT = u.signed()
	}
	if has&hasRetryAfter != 0 {
		r.RetryAfter = u.signed()
	}
	if has&hasLifetime != 0 {
		r.Lifetime = u.signed()
	}
	if has&hasGaveUp != 0 {
		r.GaveUp = r.Start + u.signed()
	}
	if has&hasClient != 0 {
		r.ClientKey = u.fixed()
		r.ClientName = Name(u.number())
	}
	if has&hasProtocol != 0 {
		r.Protocol = Name(u.number())
		r.Op = Name(u.number())
		r.Rung = Name(u.number())
	}
	if has&hasVersion != 0 {
		r.Version = Name(u.number())
	}
	if has&hasServerName != 0 {
		r.ServerName, r.JA3 = Name(u.number()), Name(u.number())
	}
	if has&hasTS != 0 {
		r.TSBase = u.signed()
	}
	if has&hasBehind != 0 {
		r.Behind = u.addr(false)
	}
	if has&hasTunnel != 0 {
		r.TunnelID = uint32(u.number())
		r.VLAN = uint16(u.number())
		r.Tunnel = min(dissect.Tunnel(u.byte()), dissect.NumTunnels-1)
	}
	if has&hasHeard != 0 {
		r.LastHeard = r.Start + u.signed()
	}
	if has&hasAgain != 0 {
		r.HeardAgain, r.AgainFrame = r.Start+u.signed(), r.FirstFrame+u.signed()
	}
	if has&hasOver != 0 {
		r.OverFrame = r.FirstFrame + u.signed()
	}
	if has&hasLost != 0 {
		r.LostBytes = u.signed()
	}
}
