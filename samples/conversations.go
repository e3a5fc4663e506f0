package samples

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"squall/capture"
)

// conversationsText has conversations of every protocol, a few each: made-up
// clients and nodes whose messages the tests of dissect/overlay build, and which
// end as its tables of rows say. Its first lines have the format.
//
//go:embed conversations.txt
var conversationsText string

// Protocol is the prefix of a sample that speaks one protocol: "proto:sip".
const Protocol = "proto:"

// Line is one packet of a conversation.
type Line struct {
	At   int64 // milliseconds after its beginning
	Node bool  // the node sent it
	End  byte  // 'F' or 'R': it carries FIN or RST; else 0
	Data []byte
}

// Conversation is what one client and one node said to each other. Over TCP it
// is preceded by the handshake.
type Conversation struct {
	Protocol, About string
	UDP             bool
	Port            uint16   // of the node
	Rows            []string // the attempts in it: protocol, request, outcome, evidence
	Lines           []Line
}

// Conversations are all of them, in the order of their protocols.
var Conversations = sync.OnceValue(func() (all []Conversation) {
	for i, text := range strings.Split(conversationsText, "\n") {
		c, err := parseConversation(text, all)
		if err != nil {
			panic(fmt.Sprintf("conversations.txt:%d: %v", i+1, err)) // part of the program: a test reads it
		}
		all = c
	}
	return all
})

func parseConversation(text string, all []Conversation) ([]Conversation, error) {
	if text == "" || text[0] == '#' {
		return all, nil
	}
	word, rest, _ := strings.Cut(text, " ")
	if word == "=" {
		part := strings.Split(rest, " | ")
		head := strings.Fields(part[0])
		if len(part) < 3 || len(head) != 3 {
			return nil, fmt.Errorf("%q heads no conversation", text)
		}
		port, err := strconv.ParseUint(head[2], 10, 16)
		return append(all, Conversation{Protocol: head[0], UDP: head[1] == "udp", Port: uint16(port), About: part[1], Rows: part[2:]}), err
	}
	at, err := strconv.ParseInt(word, 10, 64)
	if err != nil || rest == "" || len(all) == 0 {
		return nil, fmt.Errorf("%q is no packet", text)
	}
	l := Line{At: at, Node: rest[0] == '<'}
	if rest = rest[1:]; rest != "" && rest[0] != ' ' {
		l.End, rest = rest[0], rest[1:]
	}
	l.Data, err = hex.DecodeString(strings.TrimSpace(rest))
	c := &all[len(all)-1]
	c.Lines = append(c.Lines, l)
	return all, err
}

// WriteConversations writes those of one protocol as a capture, one a minute
// after the other has ended, each with a client and a node of its own. An ARP
// frame two minutes after the last shows that who was silent was so for long.
func WriteConversations(out io.Writer, protocol string, opt capture.WriterOptions) error {
	if !slices.ContainsFunc(Conversations(), func(c Conversation) bool { return c.Protocol == protocol }) {
		return fmt.Errorf("no sample speaks %q; `squall sample` lists those that do", protocol)
	}
	_, err := write(out, opt, func(emit func(*capture.Packet)) (*Truth, error) {
		f, now, n := newFrames(), int64(Epoch), byte(0)
		for _, c := range Conversations() {
			if c.Protocol == protocol {
				n++
				now = c.emit(f, now, n, emit) + 60e9
			}
		}
		end := arp(netip.AddrFrom4([4]byte{192, 0, 2, n}))
		emit(&capture.Packet{Time: now + 60e9, Data: end, OrigLen: len(end), Link: capture.LinkEthernet})
		return nil, nil
	})
	return err
}

// emit gives the packets from start on, and the time of the last.
func (c *Conversation) emit(f *frames, start int64, n byte, emit func(*capture.Packet)) (last int64) {
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 40000+uint16(n))
	node := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), c.Port)
	seq := [2]uint32{1000 * uint32(n), 500000 * uint32(n)}
	send := func(at int64, fromNode bool, flags byte, data []byte) {
		src, dst, from, to := client, node, 0, 1
		if fromNode {
			src, dst, from, to = node, client, 1, 0
		}
		var b []byte
		if c.UDP {
			b = f.udp(src, dst, data)
		} else {
			b = f.tcp(src, dst, flags, seq[from], seq[to], 0, data)
			seq[from] += uint32(len(data))
			if flags&(syn|fin) != 0 {
				seq[from]++
			}
		}
		last = start + at*1e6
		emit(&capture.Packet{Time: last, Data: b, OrigLen: len(b), Link: capture.LinkEthernet})
	}
	if !c.UDP {
		send(0, false, syn, nil)
		send(1, true, syn|ack, nil)
		send(2, false, ack, nil)
	}
	for _, l := range c.Lines {
		flags := byte(ack)
		switch l.End {
		case 'F':
			flags |= fin
		case 'R':
			flags |= rst
		}
		if len(l.Data) > 0 {
			flags |= psh
		}
		send(l.At, l.Node, flags, l.Data)
	}
	return last
}
