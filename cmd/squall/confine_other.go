//go:build !linux || !(amd64 || arm64)

package main

import (
	"errors"
	"os"
)

// confine does what it can on this system: nothing, so that root is refused
// unless the user said so.
func (b *becoming) confine(string) (note string, err error) {
	if os.Geteuid() == 0 && !b.root {
		return "", exitError{exitUsage, errors.New("packets are not parsed as root: -Z root to do so all the same")}
	}
	return "no sandbox on this system", nil
}

func (b *becoming) giveUpRoot() error { return nil }
