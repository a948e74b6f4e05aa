package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/admin"
	"mayfly/internal/backup"
	"mayfly/internal/bot"
)

// operator is what the operator's verbs ask: the daemon's Desk over its socket, or one of our own while no daemon runs.
type operator interface {
	Bots(context.Context, admin.Which) ([]admin.Bot, error)
	Runs(context.Context, admin.RunsQuestion) (admin.Runs, error)
	Logs(context.Context, admin.LogsQuestion) ([]admin.Run, error)
	Usage(context.Context, admin.Which) (admin.Usage, error)
	Whole(context.Context, admin.Nothing) (admin.HostUsage, error)
	Outbox(context.Context, admin.Which) ([]admin.Waiting, error)
	Retry(context.Context, admin.Which) (admin.Retried, error)
	Replay(context.Context, admin.Job) (admin.Done, error)
	Pause(context.Context, admin.Act) (admin.Done, error)
	Resume(context.Context, admin.Act) (admin.Done, error)
	Remove(context.Context, admin.Act) (admin.Removed, error)
	Verify(context.Context, admin.Nothing) ([]backup.Problem, error)
	Backup(context.Context, io.Writer) ([]backup.Problem, error)
}

// operatorVerb is a verb that looks at a state folder or changes it.
type operatorVerb struct {
	name, args, does string
	example          string
	flags            func(*flag.FlagSet, *order)
	least, most      int // arguments
	run              func(context.Context, *order) error
}

// order is one command line of the operator.
type order struct {
	std    stdio
	cfg    config
	path   string // of cfg
	noted  bool   // that no daemon runs
	args   []string
	show   printer
	json   bool
	failed bool
	follow bool
	retry  bool
	limit  int
	replay int64
	why    string
}

// which is the bot of the first argument, or all.
func (o *order) which() admin.Which { return admin.Which{Bot: o.arg()} }

func (o *order) arg() string {
	if len(o.args) == 0 {
		return ""
	}
	return o.args[0]
}

func operatorVerbs() []operatorVerb {
	why := func(f *flag.FlagSet, o *order) { f.StringVar(&o.why, "why", "", "the reason, a `text`") }
	return []operatorVerb{
		{"bots", "[BOT]", "the bots: state, author's contact, last run, disk, errors", "mayfly bots --json | jq '.[].address'", nil, 0, 1, showBots},
		{"runs", "[BOT] [--failed] [--limit N]", "runs, newest first; --failed adds mail that was set aside; --replay JOB tries it again",
			"mayfly runs dice --failed", func(f *flag.FlagSet, o *order) {
				f.BoolVar(&o.failed, "failed", false, "only runs that failed, and mail that was set aside")
				f.IntVar(&o.limit, "limit", 20, "at most `N` runs")
				f.Int64Var(&o.replay, "replay", 0, "try the mail that was set aside as `JOB` again")
			}, 0, 1, showRuns},
		{"usage", "[BOT]", "what bots used in the last hour and day, and the host's disk, CPU time and ceilings", "mayfly usage", nil, 0, 1, showUsage},
		{"logs", "BOT [-f]", "what a bot's last runs wrote; -f goes on with new ones", "mayfly logs dice -f",
			func(f *flag.FlagSet, o *order) { f.BoolVar(&o.follow, "f", false, "follow: go on with new runs") }, 1, 1, showLogs},
		{"pause", "BOT [--why TEXT]", "let a bot's mail wait in its mailbox", `mayfly pause dice --why "asks for passwords"`, why, 1, 1, pauseBot},
		{"resume", "BOT", "end a pause", "mayfly resume dice", nil, 1, 1, resumeBot},
		{"remove", "BOT [--why TEXT]", "uninstall a bot, with all that it stored, and tell its author", `mayfly remove dice --why "sends junk"`, why, 1, 1, removeBot},
		{"outbox", "[BOT] [--retry]", "mail that waits to be sent and why; --retry tries it now", "mayfly outbox --retry",
			func(f *flag.FlagSet, o *order) { f.BoolVar(&o.retry, "retry", false, "try all that waits now") }, 0, 1, showOutbox},
		{"backup", "FILE|-", "write everything into FILE, also while mayfly runs; it holds the bots' keys", "mayfly backup /root/mayfly-$(date +%F).tar.gz", nil, 1, 1, writeBackup},
		{"restore", "FILE", "put a backup into an empty state folder", "mayfly restore /root/mayfly-2026-01-31.tar.gz", nil, 1, 1, restoreBackup},
		{"verify", "[FILE]", "check the state folder, or a backup", "mayfly verify /root/mayfly-2026-01-31.tar.gz", nil, 0, 1, verify},
	}
}

// operatorUsage is the part of the help about these verbs.
func operatorUsage() string {
	var b strings.Builder
	for _, v := range operatorVerbs() {
		fmt.Fprintf(&b, "  %-29s %s\n", "mayfly "+v.name+" "+strings.Fields(v.args)[0], v.does)
	}
	return b.String()
}

func findOperatorVerb(name string) (operatorVerb, bool) {
	for _, v := range operatorVerbs() {
		if v.name == name {
			return v, true
		}
	}
	return operatorVerb{}, false
}

const operatorExits = `
BOT is an address, the part of it before the @, or the bot's name, where that stands for one bot only.
Exit codes: 0 done; 1 it failed, stderr says why; 2 the command line or the configuration is wrong.
`

// help is the verb's own.
func (v operatorVerb) help(flags *flag.FlagSet, w io.Writer) {
	fmt.Fprintf(w, "Usage: mayfly %s %s [-config FILE] [--json]\n\n  %s\n\nFlags:\n", v.name, v.args, v.does)
	flags.SetOutput(w)
	flags.PrintDefaults()
	fmt.Fprintf(w, "\nExample:\n  %s\n%s", v.example, operatorExits)
}

// do carries out the verb.
func (v operatorVerb) do(ctx context.Context, args []string, std stdio) (err error) {
	o := &order{std: std, show: newPrinter(std.out)}
	flags := flag.NewFlagSet("mayfly "+v.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.path, "config", "/etc/mayfly.toml", "the configuration `file`")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	if v.flags != nil {
		v.flags(flags, o)
	}
	o.args, err = parseAnywhere(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		v.help(flags, std.out)
		return nil
	case err != nil:
		return fmt.Errorf("%w: see mayfly %s -h: %w", err, v.name, errUsage)
	case len(o.args) < v.least || len(o.args) > v.most:
		return fmt.Errorf("mayfly %s takes %s: see mayfly %s -h: %w", v.name, v.args, v.name, errUsage)
	}
	if o.cfg, err = readConfig(o.path); err != nil {
		return err
	}
	return v.run(ctx, o)
}

// parseAnywhere takes flags also behind arguments.
func parseAnywhere(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		if parsed := args[:len(args)-flags.NArg()]; len(parsed) > 0 && parsed[len(parsed)-1] == "--" {
			return append(rest, flags.Args()...), nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

// with asks the daemon, or opens the state folder while none runs.
func (o *order) with(ctx context.Context, f func(operator) error) error {
	if !exists(o.cfg.State) {
		return fmt.Errorf("there is no state folder %s: set state in the configuration, or start mayfly serve, which makes it", o.cfg.State)
	}
	for began := time.Now(); ; time.Sleep(lookEvery) {
		h := &host{cfg: o.cfg, log: slog.New(slog.NewTextHandler(o.std.err, &slog.HandlerOptions{Level: slog.LevelWarn}))}
		err := h.openFiles(ctx)
		switch {
		case err == nil:
			return errors.Join(o.withoutDaemon(ctx, h, f), h.Close())
		case !errors.Is(err, unix.EWOULDBLOCK):
			return errors.Join(err, h.Close())
		}
		if err := h.Close(); err != nil {
			return err
		}
		daemon := admin.Dial(o.cfg.State)
		if err = daemon.Reach(ctx); err == nil {
			return f(daemon)
		}
		if time.Since(began) > reachTime || ctx.Err() != nil {
			return err
		}
	}
}

// Whoever has the lock is a daemon, which may be about to start or to end, or another command, which is soon done.
const (
	lookEvery = 50 * time.Millisecond
	reachTime = 10 * time.Second
)

// withoutDaemon has the question answered from the state folder, and says so.
func (o *order) withoutDaemon(ctx context.Context, h *host, f func(operator) error) error {
	if !o.noted {
		fmt.Fprintf(o.std.err, "mayfly: no mayfly runs on %s, so this is what its files say: mayfly serve -config %s starts it\n", o.cfg.State, o.path)
		o.noted = true
	}
	if err := h.openForDesk(); err != nil {
		return err
	}
	return f(h.desk(ctx, false))
}

// answer prints what was answered, as JSON or by print.
func answer[A any](o *order, a A, print func(A) error) error {
	if o.json {
		return json.NewEncoder(o.std.out).Encode(a)
	}
	return print(a)
}

func showBots(ctx context.Context, o *order) error {
	return o.with(ctx, func(ask operator) error {
		bots, err := ask.Bots(ctx, o.which())
		if err != nil {
			return err
		}
		if err := answer(o, bots, o.show.bots); err != nil || o.json || o.arg() != "" {
			return err
		}
		whole, err := ask.Whole(ctx, admin.Nothing{})
		if err != nil {
			return err
		}
		return o.show.whole(whole)
	})
}

func showRuns(ctx context.Context, o *order) error {
	return o.with(ctx, func(ask operator) error {
		if o.replay != 0 {
			return o.did("mail %d of %s is tried again", func() (admin.Done, error) { return ask.Replay(ctx, admin.Job{Job: o.replay}) }, o.replay)
		}
		runs, err := ask.Runs(ctx, admin.RunsQuestion{Which: o.which(), Failed: o.failed, Limit: o.limit})
		if err != nil {
			return err
		}
		return answer(o, runs, o.show.runs)
	})
}

func showUsage(ctx context.Context, o *order) error {
	return o.with(ctx, func(ask operator) error {
		usage, err := ask.Usage(ctx, o.which())
		if err != nil {
			return err
		}
		return answer(o, usage, o.show.usage)
	})
}

// followEvery is how often new runs are looked for.
const followEvery = time.Second

func showLogs(ctx context.Context, o *order) error {
	var last int64
	for {
		err := o.with(ctx, func(ask operator) error {
			runs, err := ask.Logs(ctx, admin.LogsQuestion{Bot: o.arg(), After: last})
			for _, r := range runs {
				last = r.ID
				if err == nil {
					err = answer(o, r, o.show.log)
				}
			}
			return err
		})
		if o.follow && ctx.Err() != nil { // that is how following ends
			return nil
		}
		if err != nil || !o.follow {
			return err
		}
		select {
		case <-time.After(followEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// did does something to a bot and says so.
func (o *order) did(format string, do func() (admin.Done, error), args ...any) error {
	done, err := do()
	if err != nil {
		return err
	}
	return answer(o, done, func(d admin.Done) error {
		fmt.Fprintf(o.std.out, format+"\n", append(slices.Clone(args), d.Bot)...)
		if d.Note != "" {
			fmt.Fprintln(o.std.err, "mayfly:", clean(d.Note))
		}
		return nil
	})
}

func pauseBot(ctx context.Context, o *order) error {
	return o.with(ctx, func(ask operator) error {
		return o.did("paused %s: its mail waits; mayfly resume ends it", func() (admin.Done, error) { return ask.Pause(ctx, admin.Act{Bot: o.arg(), Why: o.why}) })
	})
}

func resumeBot(ctx context.Context, o *order) error {
	return o.with(ctx, func(ask operator) error {
		return o.did("resumed %s", func() (admin.Done, error) { return ask.Resume(ctx, admin.Act{Bot: o.arg()}) })
	})
}

func removeBot(ctx context.Context, o *order) error {
	return o.with(ctx, func(ask operator) error {
		removed, err := ask.Remove(ctx, admin.Act{Bot: o.arg(), Why: o.why})
		if err != nil {
			return err
		}
		return answer(o, removed, o.show.removed(o.std.err))
	})
}

func showOutbox(ctx context.Context, o *order) error {
	return o.with(ctx, func(ask operator) error {
		if o.retry {
			retried, err := ask.Retry(ctx, o.which())
			if err != nil {
				return err
			}
			return answer(o, retried, o.show.retried)
		}
		waiting, err := ask.Outbox(ctx, o.which())
		if err != nil {
			return err
		}
		return answer(o, waiting, o.show.outbox)
	})
}

// writeBackup writes into a new file that is put in its place when it is whole.
func writeBackup(ctx context.Context, o *order) error {
	return o.with(ctx, func(ask operator) error {
		if o.arg() == "-" {
			found, err := ask.Backup(ctx, o.std.out)
			if err != nil {
				return err
			}
			return o.problems(stdio{o.std.in, o.std.err, o.std.err}, found)
		}
		found, err := backupFile(ctx, ask, o.arg())
		if err != nil {
			return err
		}
		if info, err := os.Stat(o.arg()); err == nil && !o.json {
			fmt.Fprintf(o.std.out, "wrote %s, %s: it holds the bots' keys, so keep it as you keep those\n", o.arg(), bot.RoundSize(info.Size()))
		}
		return o.problems(o.std, found)
	})
}

func backupFile(ctx context.Context, ask operator, path string) ([]backup.Problem, error) {
	partial := path + ".partial"
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	err = f.Chmod(0o600)
	var found []backup.Problem
	if err == nil {
		found, err = ask.Backup(ctx, f)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(partial))
	}
	return found, nil
}

// problems prints what is wrong, and fails where something is.
func (o *order) problems(std stdio, found []backup.Problem) error {
	if o.json {
		if err := json.NewEncoder(std.out).Encode(append([]backup.Problem{}, found...)); err != nil {
			return err
		}
	} else {
		for _, p := range found {
			fmt.Fprintf(std.out, "%s\n  to mend it: %s\n", clean(p.What), clean(p.Mend))
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%d things are wrong: see above", len(found))
	}
	return nil
}

// archiveFiles is how many files and folders an archive may hold.
const archiveFiles = 20_000_000

func restoreBackup(ctx context.Context, o *order) error {
	f, err := os.Open(o.arg())
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.MkdirAll(o.cfg.State, 0o700); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	lock, err := lockState(o.cfg.State + "/lock")
	if err != nil {
		return err
	}
	defer lock.Close()
	free, err := freeBytes(o.cfg.State)
	if err != nil {
		return err
	}
	found, err := backup.Of(o.cfg.State).Restore(ctx, f, backup.Bounds{Files: archiveFiles, Bytes: free})
	if err != nil {
		return err
	}
	if !o.json {
		fmt.Fprintf(o.std.out, "restored into %s: start mayfly serve, and let no other host run on what the backup is of\n", o.cfg.State)
	}
	return o.problems(o.std, found)
}

func verify(ctx context.Context, o *order) error {
	if o.arg() != "" {
		return verifyFile(ctx, o)
	}
	return o.with(ctx, func(ask operator) error {
		found, err := ask.Verify(ctx, admin.Nothing{})
		if err != nil {
			return err
		}
		return o.sound(found, o.cfg.State)
	})
}

func verifyFile(ctx context.Context, o *order) error {
	f, err := os.Open(o.arg())
	if err != nil {
		return err
	}
	defer f.Close()
	found, err := backup.CheckArchive(ctx, f, backup.Bounds{Files: archiveFiles, Bytes: 1 << 50})
	if err != nil {
		return err
	}
	return o.sound(found, o.arg())
}

func (o *order) sound(found []backup.Problem, what string) error {
	if len(found) == 0 && !o.json {
		fmt.Fprintf(o.std.out, "%s is sound: all that the ledger names is there\n", what)
	}
	return o.problems(o.std, found)
}

func freeBytes(path string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return 0, fmt.Errorf("state: %w", err)
	}
	return int64(stat.Bavail) * stat.Bsize, nil
}
