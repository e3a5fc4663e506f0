// Package dissect holds the words that every stage of squall shares: what a
// datagram is, what an overlay message says, what an attempt, an intent, a
// client and a node are. It has no machinery: headers turns packets into
// datagrams, overlay turns datagrams into messages, attempt turns both into
// attempts and intents, storm turns those into findings.
//
// All times are nanoseconds since the Unix epoch, UTC, in an int64. Captures
// may start in 1970 and may end in 2262.
package dissect
