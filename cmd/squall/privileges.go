package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// keepsRoot is the name for -Z that changes nothing.
const keepsRoot = "root"

// relinquish makes an ordinary user of root: whoever called sudo, else nobody,
// else the named one. A run's directory is made before, given to that user and
// gone into, so that nothing above it need be open to him; the path to use
// from then on comes back. Without root it does nothing.
func relinquish(name, dir string) (string, error) {
	if os.Geteuid() != 0 || name == keepsRoot {
		return dir, nil
	}
	if name == "" {
		if name = os.Getenv("SUDO_USER"); name == "" || name == keepsRoot {
			name = "nobody"
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		return dir, fmt.Errorf("-Z %s: %w", name, err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil || uid == 0 {
		return dir, fmt.Errorf("-Z %s: no ordinary user", name)
	}
	if dir != "" {
		if err := handOver(dir, uid, gid); err != nil {
			return dir, err
		}
		dir = "."
	}
	if err := syscall.Setgroups(nil); err != nil {
		return dir, fmt.Errorf("-Z %s: groups: %w", name, err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return dir, fmt.Errorf("-Z %s: group: %w", name, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return dir, fmt.Errorf("-Z %s: user: %w", name, err)
	}
	return dir, nil
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
