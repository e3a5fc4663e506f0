//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// terminal gives the columns of a terminal; 0 = w is none.
func terminal(w any) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return max(int(size.Col), 1)
}
