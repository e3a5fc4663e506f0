package flowlog

import (
	"squall/dissect"
	"squall/dissect/attempt"
)

// FromRow makes a record of a row of the attempts table, so that the second
// pass finds relations, services and roles anew: by hints that the first
// analysis did not have, and over the edges of several tables. Its id, client,
// outcome and all that packets said stay.
func FromRow(a *dissect.Attempt, names *attempt.Names) attempt.Record {
	word := func(s string) attempt.Name { return names.Intern([]byte(s)) }
	said := func(s string) attempt.Name { return names.Said([]byte(s)) }
	r := attempt.Record{Start: a.Start, End: a.End, AnsweredAt: a.AnsweredAt, SessionEnd: a.SessionEnd, SessionEnded: a.SessionEnded,
		HandshakeRTT: a.HandshakeRTT, RetryAfter: a.RetryAfter, GaveUp: a.GaveUp, LastSeen: a.LastSeen, LastHeard: a.LastHeard, HeardAgain: a.HeardAgain,
		Source: a.Source, Destination: a.Destination, Digest: a.ID,
		SourcePackets: a.SourcePackets, SourceBytes: a.SourceBytes, LostBytes: a.LostBytes, DestinationPackets: a.DestinationPackets, DestinationBytes: a.DestinationBytes,
		FirstFrame: a.FirstFrame, LastFrame: a.LastFrame, OverFrame: a.OverFrame, AgainFrame: a.AgainFrame, FirstOffset: a.FirstOffset,
		Protocol: word(a.Protocol), Op: word(a.Op), Rung: word(a.Rung), Version: said(a.ClientVersion), ServerName: said(a.ServerName), JA3: said(a.JA3),
		File: a.File, TunnelID: a.TunnelID, Transmissions: a.Transmissions, VLAN: a.VLAN, Proto: a.Proto, Tunnel: a.Tunnel,
		Role: a.Role, RoleSource: a.RoleSource, Outcome: a.Outcome, Evidence: a.Evidence, Answer: a.Answer, Flags: attempt.FlagGiven}
	copy(r.History[:], a.History)
	if a.RoleSource == dissect.RoleSourceBehaviour || a.RoleSource == dissect.RoleSourceUser {
		r.Role, r.RoleSource = dissect.RoleUnknown, dissect.RoleSourceNone // found anew
	}
	if a.ClientIDLevel != dissect.IDAddress {
		r.ClientKey = max(dissect.Hash64(3, []byte(a.ClientID)), 1)
		r.ClientName = names.Client([]byte(a.ClientID))
	}
	if a.OneSided {
		r.Flags |= attempt.FlagOneSided
	}
	if a.Late {
		r.Flags |= attempt.FlagLate
	}
	if a.Relation == dissect.RelationRefresh || a.Relation == dissect.RelationReattach && a.Outcome != dissect.OutcomeAccepted {
		r.Flags |= attempt.FlagRefresh
	}
	return r
}
