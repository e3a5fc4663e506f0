package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// relinquish makes an ordinary user of root, see becomeWho. A run's directory
// is made before, given to that user and gone into, so that nothing above it
// need be open to him; the path to use from then on comes back. Without root it
// does nothing.
func relinquish(name, dir string) (string, error) {
	if os.Geteuid() != 0 {
		return dir, nil
	}
	who, err := becomeWho(name)
	if err != nil || who.root {
		return dir, err
	}
	if dir != "" {
		if err := handOver(dir, who.uid, who.gid); err != nil {
			return dir, err
		}
		dir = "."
	}
	return dir, who.giveUpRoot()
}

// handOver makes a directory, or takes one that an earlier run filled, and
// gives it away. A directory that holds anything else stays root's.
func handOver(dir string, uid, gid int) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	case len(entries) > 0:
		if _, err := os.Stat(filepath.Join(dir, resultsName)); err != nil {
			return fmt.Errorf("%s: holds other files, and would be given to another user; name a new directory, or keep root with -Z root", dir)
		}
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			if err := os.Lchown(filepath.Join(dir, e.Name()), uid, gid); err != nil {
				return err
			}
		}
	}
	if err := os.Lchown(dir, uid, gid); err != nil {
		return err
	}
	return os.Chdir(dir)
}
