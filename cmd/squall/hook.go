package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/spf13/cobra"
)

const (
	// hookTime is how long a hook may take.
	hookTime = time.Minute
	// hookQueue is how many changes may wait for the hook before.
	hookQueue = 64
	hookVerb  = "run-hook"
)

// hook is the process that runs the command of --on-finding. It is started
// before watch gives up starting processes, and can do nothing but run that
// one command: what is told to it is data.
type hook struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	queue chan []byte
	done  chan struct{}
	lost  int
}

func startHook(argv []string) (*hook, error) {
	if len(argv) == 0 {
		return nil, errors.New("--on-finding: want a command")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, fmt.Errorf("--on-finding: %w", err)
	}
	self := "/proc/self/exe" // who is no longer root may not reach it by its name
	if runtime.GOOS != "linux" {
		if self, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	h := &hook{cmd: exec.Command(self, append([]string{hookVerb, "--", path}, argv[1:]...)...), queue: make(chan []byte, hookQueue), done: make(chan struct{})}
	h.cmd.Stderr = os.Stderr
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(h.done)
		for line := range h.queue {
			if _, err := h.in.Write(line); err != nil {
				return
			}
		}
	}()
	return h, nil
}

// run queues the command; when it cannot keep up, changes are left out.
func (h *hook) run(s *sighting) {
	b, err := json.Marshal(s)
	if err != nil {
		return
	}
	select {
	case h.queue <- append(b, '\n'):
	default:
		h.lost++
	}
}

// close lets the last commands finish, in the time that one may take.
func (h *hook) close(say func(string, ...any)) {
	close(h.queue)
	select {
	case <-h.done:
	case <-time.After(hookTime):
	}
	h.in.Close() // the process ends behind its last command
	if h.lost > 0 {
		say("--on-finding: %d changes were left out, the command is too slow", h.lost)
	}
}

// hookCommand is that process: one line of JSON, one run of the command.
func hookCommand() *cobra.Command {
	return &cobra.Command{
		Use: hookVerb, Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			in := bufio.NewReader(cmd.InOrStdin())
			for {
				line, err := in.ReadBytes('\n')
				if err != nil {
					return nil
				}
				var s sighting
				if json.Unmarshal(line, &s) != nil {
					continue
				}
				ctx, cancel := context.WithTimeout(context.Background(), hookTime)
				c := exec.CommandContext(ctx, argv[0], argv[1:]...)
				c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(line), cmd.ErrOrStderr(), cmd.ErrOrStderr()
				c.Env = append(os.Environ(), "SQUALL_CLASS="+s.Class, "SQUALL_SERVICE="+s.Service, "SQUALL_SIGHT="+s.Sight, "SQUALL_ONSET="+s.Onset, "SQUALL_END="+s.End)
				if err := c.Run(); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "squall: --on-finding: %v\n", err)
				}
				cancel()
			}
		},
	}
}
