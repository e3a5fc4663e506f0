// Package testnode is a supernode stand-in on real sockets: it accepts the
// attach of each protocol that replay speaks, serves as many a second as it is
// told to, and fails in the way it is told to. Real nodes are the real test;
// this one exists so that examples and tests run anywhere without privileges.
package testnode
