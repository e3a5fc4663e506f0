// Package replay makes it happen again: what clients wanted is taken from an
// analysis (Plan), and is asked of test nodes by clients that retry as the
// recorded ones did (Policy), with real sockets (Runner) or in virtual time
// (World). Compare says how like the original the result is. Guard keeps
// everything away from machines that nobody lent for it.
//
// Three modes, design.md section 6: "intent" sends what clients wished, open
// loop, and lets their policies react; "attempt" sends every recorded attempt
// at its time, whatever becomes of it; "packet" rewrites the bytes.
package replay
