package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"mayfly/internal/session"
)

// serve runs the host until ctx ends.
func serve(ctx context.Context, args []string, std stdio) error {
	flags := newFlags("serve", std)
	path := flags.String("config", "/etc/mayfly.toml", "the configuration `file`; docs/mayfly.toml documents it")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	cfg, err := readConfig(*path)
	if err != nil {
		return err
	}
	log := newLogger(cfg.Log, std.err)
	h, err := openHost(ctx, cfg, log, logOutcome(log))
	if err != nil {
		return err
	}
	err = h.Run(ctx)
	return errors.Join(err, h.Close())
}

// logOutcome writes the line that an operator reads of every session.
func logOutcome(log *slog.Logger) func(session.Outcome) {
	return func(o session.Outcome) {
		attrs := []any{"bot", o.Bot, "job", o.Job, "sent", o.Sent, "core_cpu", o.Core.CPU}
		if o.Run != nil {
			attrs = append(attrs, "run", o.Run.Status, "cpu", o.Run.CPU, "wall", o.Run.Wall, "memory", o.Run.Memory)
			if o.Run.Schedule != "" {
				attrs = append(attrs, "schedule", o.Run.Schedule)
			}
			if o.Run.Message != "" {
				attrs = append(attrs, "message", o.Run.Message)
			}
		}
		log.Info("session committed", attrs...)
		log.Debug("session stages", stages(o)...)
	}
}

// stages says when the session woke, and how many ms later it reached each stage of its timeline.
func stages(o session.Outcome) []any {
	attrs := []any{"bot", o.Bot, "job", o.Job}
	var wake time.Time
	for i, m := range o.Timeline.Marks() {
		if i == 0 {
			wake = m.At
			attrs = append(attrs, m.Stage, wake)
			continue
		}
		attrs = append(attrs, m.Stage, float64(m.At.Sub(wake).Microseconds())/1000)
	}
	return attrs
}

func newLogger(cfg logConfig, w io.Writer) *slog.Logger {
	level, err := cfg.level()
	if err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func newFlags(verb string, std stdio) *flag.FlagSet {
	flags := flag.NewFlagSet("mayfly "+verb, flag.ContinueOnError)
	flags.SetOutput(std.err)
	return flags
}

// parseFlags takes no arguments besides flags.
func parseFlags(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes no argument %q: %w", flags.Name(), flags.Arg(0), errUsage)
	}
	return nil
}
