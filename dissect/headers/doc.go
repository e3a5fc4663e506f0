// Package headers decodes packets down to their innermost TCP, UDP or ICMP
// header, through link layers and tunnels, and holds the fragments of
// datagrams. Decoding does not allocate; a Decoder belongs to one goroutine.
package headers
