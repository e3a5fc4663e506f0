// Package samples makes captures whose truth is known: a simulator of overlay
// outages that writes real TCP, UDP and ICMP packets, and an oracle that
// derives from those packets, by the rules of the attempt tables and sharing
// no code with the engine, the rows that an analysis must find. Everything is
// generated from a seed; addresses come from documentation and private
// ranges, so nothing here was ever anybody's traffic.
package samples
