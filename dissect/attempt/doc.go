// Package attempt turns datagrams and messages into attempts and intents. It
// works in two passes. The first (Engine) sees datagrams in time order and
// emits a Record for each attempt as it is decided; it holds open attempts and
// live flows, nothing else. The second (Finalise) sees all records, resolves
// what needs the whole capture, and hands out clients with their attempts and
// intents.
package attempt
