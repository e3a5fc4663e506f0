//go:build !linux

package capture

import "runtime"

// Live captures on interfaces; on this system it cannot be opened.
type Live struct{ Source }

// OpenLive fails: see UnsupportedError.
func OpenLive(LiveOptions) (*Live, error) { return nil, &UnsupportedError{runtime.GOOS} }

// Interfaces fails: see UnsupportedError.
func Interfaces() ([]LiveInterface, error) { return nil, &UnsupportedError{runtime.GOOS} }

// Stop, Taps, AdapterTimes and Statistics are those of Linux.
func (*Live) Stop()                             {}
func (*Live) Taps() []LiveInterface             { return nil }
func (*Live) AdapterTimes() int64               { return 0 }
func (*Live) Statistics() []InterfaceStatistics { return nil }
