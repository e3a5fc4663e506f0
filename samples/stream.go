package samples

import "fmt"

// The words of the protocols over TCP: plain lines, Gnutella 0.6, Skype.

// hello is the client's first message.
func (a *dial) hello() []byte {
	switch a.w.sc.Protocol {
	case "gnutella":
		return fmt.Appendf(nil, "GNUTELLA CONNECT/0.6\r\nUser-Agent: %s\r\nX-Ultrapeer: False\r\nListen-IP: %v\r\n\r\n", a.version(), a.src)
	case "skype":
		return a.skypeHello()
	}
	return fmt.Appendf(nil, "ATTACH %08x\r\n", a.c.n)
}

func (a *dial) version() string {
	if a.c.version == "" {
		return "Squall/1.0"
	}
	return a.c.version
}

// welcome is the node's yes.
func (a *dial) welcome() []byte {
	switch a.w.sc.Protocol {
	case "gnutella":
		return []byte("GNUTELLA/0.6 200 OK\r\nUser-Agent: Squall/1.0\r\nX-Ultrapeer: True\r\n\r\n")
	case "skype":
		return a.random(skypeYes)
	}
	return []byte("WELCOME\r\n")
}

// busy is the node's no.
func (a *dial) busy() []byte {
	switch a.w.sc.Protocol {
	case "gnutella":
		return []byte("GNUTELLA/0.6 503 Busy\r\nUser-Agent: Squall/1.0\r\nX-Ultrapeer: True\r\n\r\n")
	case "skype":
		return a.random(skypeNo)
	}
	return []byte("BUSY\r\n")
}

// thanks is what the client says to a yes, nil for a bare acknowledgement.
func (a *dial) thanks() []byte {
	switch a.w.sc.Protocol {
	case "gnutella":
		return []byte("GNUTELLA/0.6 200 OK\r\n\r\n")
	case "skype":
		return a.random(16)
	}
	return nil
}
