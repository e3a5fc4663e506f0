package dissect

// Class is what the header decoder made of a packet. It decides the ledger
// bucket of everything that does not reach the attempt engine.
type Class uint8

const (
	// ClassOther is a sound packet that carries no TCP, UDP or ICMP error: ARP, LLDP, ESP, ICMP echo.
	ClassOther Class = iota
	// ClassTCP is a TCP segment with at least ports, sequence number and flags.
	ClassTCP
	// ClassUDP is a UDP datagram with at least its ports.
	ClassUDP
	// ClassICMPError is an ICMP or ICMPv6 error that quotes a packet; see Datagram.Quoted.
	ClassICMPError
	// ClassFragment is a fragment that by itself says nothing (not the first, or waiting for others).
	ClassFragment
	// ClassUndecodable is a link type that squall does not decode.
	ClassUndecodable
	// ClassMalformed is a packet whose headers contradict themselves.
	ClassMalformed
	// ClassCut is a packet whose snapshot length ended before it could be classified.
	ClassCut
)

// TCP header flags, RFC 9293 section 3.1.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Tunnel is the innermost encapsulation that a datagram was found in.
type Tunnel uint8

const (
	TunnelNone Tunnel = iota
	TunnelGRE
	TunnelERSPAN
	TunnelIPIP
	Tunnel6in4
	TunnelVXLAN
	TunnelGENEVE
	TunnelGTPU
	TunnelTeredo
	TunnelMPLS
	TunnelPPPoE
	TunnelAH
	TunnelPBB
	NumTunnels
)

var tunnelNames = [NumTunnels]string{"", "gre", "erspan", "ipip", "6in4", "vxlan", "geneve", "gtpu", "teredo", "mpls", "pppoe", "ah", "pbb"}

func (t Tunnel) String() string { return tunnelNames[t] }

// IP protocol numbers that the stages branch on.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
)

// Datagram is one decoded packet: a TCP segment, a UDP datagram or an ICMP
// error, seen through any tunnels at its innermost IP header. The decoder
// reuses it; Payload aliases the packet buffer and is valid only until the
// next packet, whoever keeps bytes copies them.
type Datagram struct {
	Time  int64  // nanoseconds since the epoch
	File  uint32 // index of the input, see capture.Packet.File
	Frame int64  // 1-based number in that file, as Wireshark counts
	// Offset is the byte offset of the record in its uncompressed file, see capture.Packet.Offset.
	Offset int64

	Class  Class
	Proto  uint8 // IP protocol of the innermost header: ProtoTCP, ProtoUDP, …
	Flags  uint8 // TCP flags
	TTL    uint8
	HasTS  bool // the TCP timestamps option is present (RFC 7323)
	Cut    bool // the snapshot length removed bytes of this packet
	First  bool // first fragment of a datagram that was not reassembled
	Tunnel Tunnel
	// Broadcast: the link header that is nearest to the datagram is addressed to all.
	Broadcast bool

	Src, Dst         Addr
	SrcPort, DstPort uint16
	IPID             uint16 // IPv4 identification, 0 for IPv6
	VLAN             uint16 // innermost VLAN id, 0 = none
	Window           uint16
	Point            uint8  // tells capture points apart: tap and interface; 0 where there is one
	TunnelID         uint32 // VNI, GRE key, GTP-U TEID, PPPoE session, PBB service, innermost MPLS label
	Seq, Ack         uint32
	TSVal, TSEcr     uint32

	IPLen      int    // bytes of the innermost IP packet, header included, as its header says
	PayloadLen int    // transport payload bytes that were on the wire
	Payload    []byte // those of them that were captured; len(Payload) <= PayloadLen

	// Of an ICMP error.
	ICMPType, ICMPCode uint8
	Quoted             Quoted
}

// Quoted is the packet that an ICMP error quotes: RFC 792, RFC 4443 section 3.
type Quoted struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
	HasSeq           bool   // the quotation reached the TCP sequence number
	Seq              uint32 // TCP sequence number: the ISN of the SYN that is refused
	Payload          []byte // what was quoted after the transport header, may be empty
}

// ToMany reports a datagram to a group or to all of a subnet. A subnet's own
// broadcast address cannot be told without its mask; one that ends in ones, in a
// frame to all, is one. The frame alone does not do: packet generators that know
// no better address unicast like that.
func (d *Datagram) ToMany() bool {
	return d.Dst.Multicast() || d.Broadcast && d.Dst.Is4() && d.Dst[15]&0x1f == 0x1f
}

// PayloadEnd is how much of either end of a payload, bytes, tells packets apart.
const PayloadEnd = 64

// FoldPayload takes both ends of what was captured of the payload into the hash h.
func (d *Datagram) FoldPayload(h uint64) uint64 {
	p := d.Payload
	if len(p) > 2*PayloadEnd {
		h = FoldBytes(h, p[len(p)-PayloadEnd:])
		p = p[:PayloadEnd]
	}
	return FoldBytes(h, p)
}

// Source and Destination are the two endpoints of the datagram.
func (d *Datagram) Source() Endpoint      { return Endpoint{d.Src, d.SrcPort} }
func (d *Datagram) Destination() Endpoint { return Endpoint{d.Dst, d.DstPort} }
