package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// becoming is who a live verb is once its sockets are open.
type becoming struct {
	uid, gid int
	name     string
	root     bool // the user said: stay root
	drop     bool // it was root at the start
	done     bool // it is no longer
}

// becomeWho settles that before anything is opened. Started as root, squall
// becomes the user of -Z, else who called sudo, else nobody.
func becomeWho(name string) (b becoming, err error) {
	if os.Geteuid() != 0 {
		if name != "" {
			return b, exitError{exitUsage, errors.New("-Z: only root can become another user")}
		}
		return becoming{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	b.drop = true
	if name == "" {
		uid, err1 := strconv.Atoi(os.Getenv("SUDO_UID"))
		gid, err2 := strconv.Atoi(os.Getenv("SUDO_GID"))
		if err1 == nil && err2 == nil && uid > 0 {
			b.uid, b.gid, b.name = uid, gid, os.Getenv("SUDO_USER")
			return b, nil
		}
		name = "nobody"
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			if name != "nobody" {
				return b, exitError{exitUsage, fmt.Errorf("-Z %s: no such user", name)}
			}
			b.uid, b.gid, b.name = 65534, 65534, name
			return b, nil
		}
	}
	b.name = u.Username
	if b.uid, err = strconv.Atoi(u.Uid); err == nil {
		b.gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		return b, exitError{exitUsage, fmt.Errorf("-Z %s: %w", name, err)}
	}
	b.root = b.uid == 0
	return b, nil
}

const userHelp = "as root: become this user once everything is open (default: who called sudo, else nobody); root stays root"
