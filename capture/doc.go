// Package capture gets packets in and out: it recognises and reads pcap and
// pcapng inside any of the usual compressions, from files, directories and
// standard input, merges many inputs by time, and writes.
// It knows nothing of what the packets mean.
package capture
