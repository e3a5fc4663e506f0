//go:build !linux

package replay

import (
	"context"
	"errors"
)

// Wire is an interface that packets are sent on; on Linux only.
type Wire struct {
	Name     string
	MAC      [6]byte
	Loopback bool
}

var errWire = errors.New("packets are sent on Linux only; write them to a file with -w")

// OpenWire fails.
func OpenWire(string) (*Wire, error) { return nil, errWire }

// Close does nothing.
func (w *Wire) Close() error { return nil }

// Send fails.
func (w *Wire) Send(context.Context, *Packets, Pace, Caps) (*PacketReport, error) {
	return nil, errWire
}

// Gateway knows nothing.
func Gateway([6]byte) (string, bool) { return "", false }
