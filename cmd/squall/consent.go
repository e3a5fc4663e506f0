package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"squall/replay"
)

func consentCommand() *cobra.Command {
	var listen, until string
	var rate float64
	cmd := &cobra.Command{
		Use:   "consent --until TIME --max-rate N",
		Short: "on a target: the leave to be loaded, until it is taken back",
		Long: `consent runs on a target and gives squall replay leave to load that machine, until
a time and with at most so many attempts a second. replay asks for it on the
address that it is going to load, asks again every second, and stops when the
leave ends or is not confirmed for three seconds: stopping this command stops
the load. Recorded, multicast and broadcast addresses stay closed.`,
		Example: `  squall consent --until 15:00 --max-rate 5000
  squall replay outage.plan --target node.example.net:5060 --consent 7655 --send`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			end, err := parseUntil(until, time.Now())
			if err != nil {
				return exitError{exitUsage, err}
			}
			if !(rate > 0) {
				return exitError{exitUsage, fmt.Errorf("--max-rate %v: want attempts per second, above 0", rate)}
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return exitError{exitFailed, err}
			}
			server := &http.Server{Handler: replay.ConsentHandler(end, rate), ReadHeaderTimeout: 5 * time.Second}
			fmt.Fprintf(fold(cmd.OutOrStdout()), "consent on %v until %s, at most %g attempts a second; Ctrl-C takes it back\n", l.Addr(), end.UTC().Format(time.RFC3339), rate)
			ctx, stop := context.WithDeadline(cmd.Context(), end)
			defer stop()
			closed := context.AfterFunc(ctx, func() { server.Close() })
			defer closed()
			if err := server.Serve(l); ctx.Err() == nil {
				return exitError{exitFailed, err}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", ":7655", "address to be asked at")
	f.StringVar(&until, "until", "", "15:04, RFC 3339, or a duration such as 30m")
	f.Float64Var(&rate, "max-rate", 0, "attempts per second")
	return cmd
}

// consentMost is the longest leave.
const consentMost = 24 * time.Hour

// parseUntil reads the end of a leave; a time of day is the next such time.
func parseUntil(text string, now time.Time) (end time.Time, err error) {
	if d, e := time.ParseDuration(text); e == nil {
		end = now.Add(d)
	} else if t, e := time.Parse(time.RFC3339, text); e == nil {
		end = t
	} else if t, e := time.ParseInLocation("15:04", text, now.Location()); e == nil {
		end = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
		if !end.After(now) {
			end = end.AddDate(0, 0, 1)
		}
	} else {
		return end, fmt.Errorf("--until %q: want 15:04, RFC 3339 or 30m", text)
	}
	if d := end.Sub(now); d <= 0 || d > consentMost {
		return end, fmt.Errorf("--until %s: want a moment in the next %v", text, consentMost)
	}
	return end, nil
}
