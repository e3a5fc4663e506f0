// Command squall reads packet captures of overlay networks.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes.
const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2   // wrong usage, or input that cannot be read
	exitDamaged   = 3   // done, but input was damaged and the results say so
	exitThreshold = 99  // a threshold, as of --fail-on, was met
	exitSignal    = 130 // interrupted
)

// exitError carries an exit code with the line that explains it; an empty line
// means that everything was said.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// gcPercent trades nothing that can be measured for a fifth of the memory: most
// of what is alive is slabs without pointers, which cost the collector nothing.
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process: arguments and streams in, exit code out.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(fold(stderr))
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, syscall.EPIPE): // the reader has seen enough: | head
		return exitDone
	case ctx.Err() != nil:
		return exitSignal
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(fold(stderr), "squall:", exit.err)
		}
		return exit.code
	}
	fmt.Fprintln(fold(stderr), "squall:", err)
	return exitUsage
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "squall",
		Short: "Captures of overlay networks: who tried to attach to what, and how it ended",
		Long: `squall reads packet captures of overlay networks.

Try it on a simulated outage:
  squall sample skype-2010 -w - | squall analyze -`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			cmd.SuggestionsMinimumDistance = 2
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return fmt.Errorf("unknown command %q: did you mean %s?", args[0], strings.Join(near, " or "))
			}
			return fmt.Errorf("unknown command %q; squall --help lists them", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(flagError)
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		out := cmd.OutOrStdout()
		var b bytes.Buffer // cobra writes piece by piece
		cmd.SetOut(&b)
		help(cmd, args)
		cmd.SetOut(out)
		fold(out).Write(b.Bytes())
	})
	root.AddCommand(
		analyzeCommand(),
		captureCommand(),
		compareCommand(),
		consentCommand(),
		eventsCommand(),
		explainCommand(),
		extractCommand(),
		infoCommand(),
		manCommand(),
		mergeCommand(),
		planCommand(),
		protocolsCommand(),
		replayCommand(),
		reportCommand(),
		sampleCommand(),
		sourcesCommand(),
		testnodeCommand(),
		whatifCommand(),
		verifyCommand(),
		watchCommand(),
		hookCommand(),
	)
	for _, c := range root.Commands() {
		if c.Args != nil {
			c.Args = lineOfUse(c.Args)
		}
	}
	return root
}

// lineOfUse says what the verb wants where cobra only counts what it got.
func lineOfUse(enough cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if enough(cmd, args) != nil {
			return fmt.Errorf("want: %s", cmd.UseLine())
		}
		return nil
	}
}

// flagError names the flag that an unknown one is a slip of, and where all are.
func flagError(cmd *cobra.Command, err error) error {
	wrong, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	}
	names := &cobra.Command{SuggestionsMinimumDistance: 2} // cobra knows slips of commands only
	cmd.InitDefaultHelpFlag()
	add := func(f *pflag.Flag) {
		if !f.Hidden && len(f.Name) > 2 {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	}
	cmd.Flags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	if near := names.SuggestionsFor(wrong); len(near) > 0 {
		return fmt.Errorf("unknown flag: --%s: did you mean --%s? All flags: %s --help", wrong, strings.Join(near, " or --"), cmd.CommandPath())
	}
	return fmt.Errorf("unknown flag: --%s; all flags: %s --help", wrong, cmd.CommandPath())
}

// version is the module's version as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return info.Main.Version
}
