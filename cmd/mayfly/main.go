// Command mayfly hosts Delta Chat bots on a chatmail relay.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes, as `mayfly help` documents them.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

const usage = `Mayfly hosts Delta Chat bots on a chatmail relay: a mail wakes a bot, its reply is sent, the bot ends.

Usage:
  mayfly serve -config FILE     run the host until it is told to stop
  mayfly demo [-keep] [-bot DIR] [-say TEXT]
                                an embedded relay, a bot, a user and one mail between them, on this machine
  mayfly lint [-json] DIR|ZIP   what a host would say of a bundle, for its author
  mayfly pack [-o FILE] [-json] DIR
                                a bundle of a bot's folder, with what it depends on, fetched by pip, npm or go
  mayfly check [-config FILE]   what this machine has, what it lacks, and how to mend it
  mayfly version                versions of mayfly and of the core that it was tested with
  mayfly help [VERB]            this text, or more of one of these, for operators, while mayfly runs or not:

%s
Example:
  mayfly check -config /etc/mayfly.toml && mayfly serve -config /etc/mayfly.toml

Exit codes: 0 done; 1 it failed, stderr says why; 2 the command line or the configuration is wrong.
`

// stdio is what a verb talks to.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// errUsage is wrapped by errors about the command line or the configuration.
var errUsage = errors.New("see mayfly help")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, std stdio) int {
	err := dispatchVerb(ctx, args, std)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintln(std.err, "mayfly:", err)
		return exitUsage
	}
	fmt.Fprintln(std.err, "mayfly:", err)
	return exitFailure
}

func dispatchVerb(ctx context.Context, args []string, std stdio) error {
	if len(args) == 0 {
		fmt.Fprintf(std.err, usage, operatorUsage())
		return fmt.Errorf("no verb given: %w", errUsage)
	}
	switch verb, rest := args[0], args[1:]; verb {
	case "serve":
		return serve(ctx, rest, std)
	case "demo":
		return demo(ctx, rest, std)
	case "lint":
		return lint(ctx, rest, std)
	case "pack":
		return packBot(ctx, rest, std)
	case "check":
		return check(ctx, rest, std)
	case "version":
		return version(rest, std)
	case "help", "-h", "-help", "--help":
		if len(rest) == 1 {
			return helpOf(ctx, rest[0], std)
		}
		fmt.Fprintf(std.out, usage, operatorUsage())
		return nil
	default:
		if v, ok := findOperatorVerb(verb); ok {
			return v.do(ctx, rest, std)
		}
		return fmt.Errorf("unknown verb %q: %w", verb, errUsage)
	}
}

// helpOf prints the help of one verb.
func helpOf(ctx context.Context, verb string, std stdio) error {
	switch verb {
	case "version", "help":
		fmt.Fprintf(std.out, usage, operatorUsage())
		return nil
	}
	std.err = std.out // it is what was asked for
	return dispatchVerb(ctx, []string{verb, "-h"}, std)
}
