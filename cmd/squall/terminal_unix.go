//go:build unix

package main

import (
	"golang.org/x/sys/unix"
)

// terminal gives the columns and rows of a terminal; 0 = w is none.
func terminal(w any) (columns, rows int) {
	f, ok := w.(file)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return max(int(size.Col), 1), int(size.Row)
}
