package samples

import "fmt"

// expires is the lifetime of a registration, seconds.
func (a *dial) expires() int {
	if a.w.sc.Hold > 0 {
		return int(a.w.sc.Hold.Seconds())
	}
	return 3600
}

func (a *dial) register(credentials bool) []byte {
	cseq, auth := 1, ""
	if credentials {
		cseq, auth = 2, fmt.Sprintf("Authorization: Digest username=\"u%d\", realm=\"example.org\", nonce=\"n\", uri=\"sip:example.org\", response=\"%032x\"\r\n", a.c.n, a.c.n)
	}
	return fmt.Appendf(nil, "REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP %v;branch=z9hG4bK%s%d;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:u%d@example.org>;tag=%s\r\nTo: <sip:u%d@example.org>\r\nCall-ID: %s@example.org\r\nCSeq: %d REGISTER\r\n"+
		"Contact: <sip:u%d@%v>\r\nExpires: %d\r\nUser-Agent: %s\r\n%sContent-Length: 0\r\n\r\n",
		a.src, a.txn, cseq, a.c.n, a.txn[:8], a.c.n, a.txn, cseq, a.c.n, a.src, a.expires(), a.version(), auth)
}

func (a *dial) sipReply(code int, credentials bool) []byte {
	cseq, extra, reason := 1, "", "OK"
	if credentials {
		cseq = 2
	}
	switch code {
	case 401:
		reason, extra = "Unauthorized", "WWW-Authenticate: Digest realm=\"example.org\", nonce=\"n\"\r\n"
	case 503:
		reason, extra = "Service Unavailable", fmt.Sprintf("Retry-After: %d\r\n", int(a.w.sc.RetryAfter.Seconds()))
	case 200:
		extra = fmt.Sprintf("Contact: <sip:u%d@%v>;expires=%d\r\n", a.c.n, a.src, a.expires())
	}
	return fmt.Appendf(nil, "SIP/2.0 %d %s\r\nVia: SIP/2.0/UDP %v;branch=z9hG4bK%s%d;rport\r\nFrom: <sip:u%d@example.org>;tag=%s\r\n"+
		"To: <sip:u%d@example.org>;tag=r\r\nCall-ID: %s@example.org\r\nCSeq: %d REGISTER\r\n%sContent-Length: 0\r\n\r\n",
		code, reason, a.src, a.txn, cseq, a.c.n, a.txn[:8], a.c.n, a.txn, cseq, extra)
}
