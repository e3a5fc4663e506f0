// Package taps makes one case of what several capture points saw: it compares
// their clocks before anything is paired, and follows a flow that was seen at
// several points, under other addresses or in another tunnel, as one.
//
//	captures ─Survey→ Clocks ─capture.Open→ packets ─headers→ datagrams ─Joiner→ datagrams of one vantage
package taps
