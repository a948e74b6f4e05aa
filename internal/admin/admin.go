// Package admin is what an operator can see of a host and do to it, and the socket over which the running host is asked.
//
// A Desk answers. While the daemon runs, it holds the state folder's lock and has the only Desk, which it serves on the unix socket
// admin.sock in the state folder, mode 0600: HTTP/1.1, one POST /v1/<what> for each question, JSON in both directions.
//
//	POST /v1/bots     {"bot": "dice"}                       200 [{"address": …}, …]
//	POST /v1/pause    {"bot": "dice", "why": "sends junk"}  200 {"bot": "dice@example.org"}
//	POST /v1/backup   {}                                    200, the archive as it comes; problems in the trailer Mayfly-Problems
//
// What cannot be done is answered with 404 (no such bot or job), 409 (the state forbids it), 400 (not a question) or 500, and
// {"error": "…"}. While no daemon runs, the command line opens the state folder itself, under the lock, and asks its own Desk.
//
// A question is at most 64 KiB and names nothing that it need not; an answer is bounded by what the ledger keeps.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mayfly/internal/backup"
	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// What errors wrap.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("not now")
	ErrQuestion = errors.New("not a question")
)

// Host is the part of a host that is not in the ledger.
type Host interface {
	// Evict removes a bot, and ends the session that is under way.
	Evict(ctx context.Context, addr bot.Address, why string) (Evicted, error)
	// Wake has a bot's mail and outbox looked at, if the host runs.
	Wake(addr bot.Address)
	// Disk is how many bytes a bot takes, or with "" all of them.
	Disk(addr bot.Address) (int64, error)
	// Over is what a bot, or all of them, have used up, in words, and when their mail goes on; "" where nothing.
	Over(ctx context.Context, addr bot.Address) (what string, until time.Time, err error)
	// CPU is what all sandboxes took within the last hour.
	CPU(ctx context.Context) (time.Duration, error)
	Ceilings() Ceilings
	// Free is how many bytes are free where the state folder is.
	Free() (int64, error)
	Backup(ctx context.Context, w io.Writer) ([]backup.Problem, error)
	Verify(ctx context.Context) ([]backup.Problem, error)
}

// Evicted says how a bot was removed.
type Evicted struct {
	Ended  bool  // a session was under way, and was ended
	Untold error // why its author could not be told
}

// Desk answers questions.
type Desk struct {
	Ledger *ledger.Ledger
	Host   Host
	Live   bool // a daemon's
	Now    func() time.Time
}

// Which asks about one bot, by its address, its local part, or its name; or about all with "".
type Which struct {
	Bot string `json:"bot,omitempty"`
}

// find returns the one bot that a name stands for.
func (d *Desk) find(ctx context.Context, name string) (ledger.Bot, error) {
	bots, err := d.Ledger.Bots(ctx)
	if err != nil {
		return ledger.Bot{}, err
	}
	for _, same := range []func(ledger.Bot) bool{
		func(b ledger.Bot) bool { return strings.EqualFold(string(b.Address), name) },
		func(b ledger.Bot) bool { return strings.EqualFold(b.Address.Local(), name) },
		func(b ledger.Bot) bool { return strings.EqualFold(b.Manifest.Name, name) },
	} {
		var found []ledger.Bot
		for _, b := range bots {
			if same(b) {
				found = append(found, b)
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return ledger.Bot{}, fmt.Errorf("%w: %q may be %s: write the address", ErrConflict, name, addresses(found))
		}
	}
	return ledger.Bot{}, fmt.Errorf("%w: no bot is called %q: mayfly bots lists them", ErrNotFound, name)
}

func addresses(bots []ledger.Bot) string {
	var all []string
	for _, b := range bots[:min(len(bots), 5)] {
		all = append(all, string(b.Address))
	}
	return strings.Join(all, " or ")
}

// all returns the bots that a question is about.
func (d *Desk) all(ctx context.Context, which Which) ([]ledger.Bot, error) {
	if which.Bot == "" {
		return d.Ledger.Bots(ctx)
	}
	b, err := d.find(ctx, which.Bot)
	return []ledger.Bot{b}, err
}

// The states of a bot.
const (
	StateOK     = "ok"
	StatePaused = "paused"
	StateOver   = "over limit" // of the bot's or of the host's
)

// Bot is what an operator sees of a bot.
type Bot struct {
	Address   bot.Address `json:"address"`
	Name      string      `json:"name"`
	Version   string      `json:"version"`
	Contact   string      `json:"contact"` // how to reach its author
	State     string      `json:"state"`
	Why       string      `json:"why,omitempty"` // it is not ok
	Installed time.Time   `json:"installed"`
	LastRun   time.Time   `json:"last_run,omitzero"`
	NextRun   time.Time   `json:"next_run,omitzero"` // of its schedules; zero: it has none
	Runs      int         `json:"runs_day"`          // of the last 24 hours
	Errors    int         `json:"errors_day"`        // of these, failed
	SetAside  int         `json:"set_aside"`         // mails that wait for mayfly runs --replay
	Unsent    int         `json:"unsent"`            // mails in the outbox
	Disk      int64       `json:"disk_bytes"`
}

// Bots lists bots.
func (d *Desk) Bots(ctx context.Context, q Which) ([]Bot, error) {
	bots, err := d.all(ctx, q)
	if err != nil {
		return nil, err
	}
	list := []Bot{}
	for _, b := range bots {
		one, err := d.bot(ctx, b)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, nil
}

func (d *Desk) bot(ctx context.Context, b ledger.Bot) (Bot, error) {
	sums, err := d.Ledger.Summary(ctx, b.Address, d.Now().Add(-24*time.Hour))
	if err != nil {
		return Bot{}, err
	}
	disk, err := d.Host.Disk(b.Address)
	if err != nil {
		return Bot{}, err
	}
	one := Bot{
		Address: b.Address, Name: b.Manifest.Name, Version: b.Manifest.Version, Contact: b.Manifest.Contact, State: StateOK,
		Installed: b.Installed, LastRun: sums.LastRun, Runs: sums.Runs, Errors: sums.Failed, SetAside: sums.SetAside, Unsent: sums.Unsent, Disk: disk,
	}
	if one.NextRun, err = d.nextRun(ctx, b.Address); err != nil {
		return Bot{}, err
	}
	one.State, one.Why, err = d.state(ctx, b.Address)
	return one, err
}

// RunsQuestion asks for runs, the newest first.
type RunsQuestion struct {
	Which
	Failed bool  `json:"failed,omitempty"` // only those that did not end well
	After  int64 `json:"after,omitempty"`  // only those with a higher number
	Limit  int   `json:"limit,omitempty"`  // 20 where it is 0
}

// Run is one run of a bot.
type Run struct {
	ID        int64         `json:"id"`
	Bot       bot.Address   `json:"bot"`
	Jobs      []int64       `json:"jobs"`
	Started   time.Time     `json:"started"`
	Ended     time.Time     `json:"ended"`
	Committed bool          `json:"committed"`
	Record    bot.RunRecord `json:"record"`
}

// Runs is what was run, and with Failed also the mails that were set aside.
type Runs struct {
	Runs     []Run      `json:"runs"`
	SetAside []SetAside `json:"set_aside,omitempty"`
}

// SetAside is a mail on which the sessions of a bot kept failing. It lies in the relay's INBOX.
type SetAside struct {
	Job      int64       `json:"job"`
	Bot      bot.Address `json:"bot"`
	Accepted time.Time   `json:"accepted"`
	Attempts int         `json:"attempts"`
	Size     int64       `json:"size"`
	Why      string      `json:"why,omitempty"`
}

const maxRuns = 1000

// Runs lists runs.
func (d *Desk) Runs(ctx context.Context, q RunsQuestion) (Runs, error) {
	addr, err := d.address(ctx, q.Which)
	if err != nil {
		return Runs{}, err
	}
	if q.Limit <= 0 {
		q.Limit = 20
	}
	found, err := d.Ledger.RunsAfter(ctx, ledger.RunFilter{Bot: addr, After: q.After, Failed: q.Failed, Limit: min(q.Limit, maxRuns)})
	if err != nil {
		return Runs{}, err
	}
	answer := Runs{Runs: []Run{}}
	for _, r := range found {
		r.Record.Log = ""
		answer.Runs = append(answer.Runs, Run(r))
	}
	if q.Failed {
		answer.SetAside, err = d.setAside(ctx, q.Which)
	}
	return answer, err
}

// address is the bot that a question is about, "" for all.
func (d *Desk) address(ctx context.Context, q Which) (bot.Address, error) {
	if q.Bot == "" {
		return "", nil
	}
	b, err := d.find(ctx, q.Bot)
	return b.Address, err
}

func (d *Desk) setAside(ctx context.Context, q Which) ([]SetAside, error) {
	bots, err := d.all(ctx, q)
	if err != nil {
		return nil, err
	}
	var list []SetAside
	for _, b := range bots {
		jobs, err := d.Ledger.Jobs(ctx, b.Address, ledger.JobFailed)
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			why, err := d.Ledger.WhyFailed(ctx, b.Address, j.ID)
			if err != nil {
				return nil, err
			}
			list = append(list, SetAside{Job: j.ID, Bot: b.Address, Accepted: j.Accepted, Attempts: j.Attempts, Size: j.Size, Why: why})
		}
	}
	return list, nil
}

// LogsQuestion asks for what a bot wrote.
type LogsQuestion struct {
	Bot   string `json:"bot"`
	After int64  `json:"after,omitempty"` // only runs with a higher number
}

// Logs returns the newest runs of a bot with what they wrote, oldest first. The ledger keeps 20 logs of a bot.
func (d *Desk) Logs(ctx context.Context, q LogsQuestion) ([]Run, error) {
	b, err := d.find(ctx, q.Bot)
	if err != nil {
		return nil, err
	}
	found, err := d.Ledger.RunsAfter(ctx, ledger.RunFilter{Bot: b.Address, After: q.After, Limit: 20})
	slices.Reverse(found)
	runs := []Run{}
	for _, r := range found {
		runs = append(runs, Run(r))
	}
	return runs, err
}

// Job asks about a mail by its number.
type Job struct {
	Job int64 `json:"job"`
}

// Done says of which bot something was done.
type Done struct {
	Bot  bot.Address `json:"bot"`
	Note string      `json:"note,omitempty"` // what did not go as it should, and how to mend it
}

// Replay gives a mail that was set aside new attempts.
func (d *Desk) Replay(ctx context.Context, q Job) (Done, error) {
	addr, err := d.Ledger.Replay(ctx, q.Job)
	if err == nil {
		d.Host.Wake(addr)
	}
	return Done{Bot: addr, Note: d.sleeping()}, missing(err)
}

// sleeping says that a thing happens later.
func (d *Desk) sleeping() string {
	if d.Live {
		return ""
	}
	return "mayfly does not run: it goes on from this when it is started"
}

// missing makes what the ledger does not have a thing that is not found.
func missing(err error) error {
	switch {
	case errors.Is(err, ledger.ErrNotFound), errors.Is(err, ledger.ErrRemoved):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, ledger.ErrJobState):
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}

// Act is something to be done to a bot, and why.
type Act struct {
	Bot string `json:"bot"`
	Why string `json:"why,omitempty"`
}

// Pause lets a bot's mail wait until Resume.
func (d *Desk) Pause(ctx context.Context, q Act) (Done, error) {
	b, err := d.find(ctx, q.Bot)
	if err == nil {
		err = missing(d.Ledger.Pause(ctx, b.Address, q.Why))
	}
	return Done{Bot: b.Address}, err
}

// Resume ends a Pause.
func (d *Desk) Resume(ctx context.Context, q Act) (Done, error) {
	b, err := d.find(ctx, q.Bot)
	if err == nil {
		err = missing(d.Ledger.Resume(ctx, b.Address))
	}
	if err == nil {
		d.Host.Wake(b.Address)
	}
	return Done{Bot: b.Address, Note: d.sleeping()}, err
}

// Removed says what went with a bot.
type Removed struct {
	Done
	Disk   int64 `json:"disk_bytes"`    // its bundles, its account, its folder
	Unsent int   `json:"unsent"`        // mails of its outbox that are not sent any more
	Ended  bool  `json:"session_ended"` // one was under way
}

// Remove uninstalls a bot and tells its author.
func (d *Desk) Remove(ctx context.Context, q Act) (Removed, error) {
	b, err := d.find(ctx, q.Bot)
	if err != nil {
		return Removed{}, err
	}
	before, err := d.bot(ctx, b)
	if err != nil {
		return Removed{}, err
	}
	e, err := d.Host.Evict(ctx, b.Address, q.Why)
	removed := Removed{Done: Done{Bot: b.Address}, Disk: before.Disk, Unsent: before.Unsent, Ended: e.Ended}
	if e.Untold != nil {
		removed.Note = fmt.Sprintf("the bot is removed, but its author could not be told in Bot/Status: %v: write to %s", e.Untold, b.Manifest.Contact)
	}
	return removed, missing(err)
}

// Waiting is a mail in the outbox.
type Waiting struct {
	Bot       bot.Address   `json:"bot"`
	To        []bot.Address `json:"to"`
	Size      int64         `json:"size"`
	Said      time.Time     `json:"said"`
	Tries     int           `json:"tries"`
	Next      time.Time     `json:"next,omitzero"` // zero: at once
	LastError string        `json:"last_error,omitempty"`
	GivenUp   bool          `json:"given_up,omitempty"`
}

// maxWaiting is how many mails of a bot are listed.
const maxWaiting = 1000

// Outbox lists what waits and why, and what was given up.
func (d *Desk) Outbox(ctx context.Context, q Which) ([]Waiting, error) {
	bots, err := d.all(ctx, q)
	if err != nil {
		return nil, err
	}
	list := []Waiting{}
	for _, b := range bots {
		unsent, err := d.Ledger.Outbox(ctx, b.Address, maxWaiting)
		if err != nil {
			return nil, err
		}
		dead, err := d.Ledger.Dead(ctx, b.Address, maxWaiting)
		if err != nil {
			return nil, err
		}
		for i, m := range append(unsent, dead...) {
			list = append(list, Waiting{Bot: b.Address, To: m.To, Size: m.Size, Said: m.Said, Tries: m.Attempts, Next: m.NotBefore,
				LastError: m.LastError, GivenUp: i >= len(unsent)})
		}
	}
	return list, nil
}

// Retried says how many mails are tried at once.
type Retried struct {
	Mails int64  `json:"mails"`
	Note  string `json:"note,omitempty"`
}

// Retry has the outbox try its mails now.
func (d *Desk) Retry(ctx context.Context, q Which) (Retried, error) {
	bots, err := d.all(ctx, q)
	if err != nil {
		return Retried{}, err
	}
	answer := Retried{Note: d.sleeping()}
	for _, b := range bots {
		n, err := d.Ledger.RetryNow(ctx, b.Address)
		if err != nil {
			return answer, err
		}
		if answer.Mails += n; n > 0 {
			d.Host.Wake(b.Address)
		}
	}
	return answer, nil
}

// Nothing asks for all there is.
type Nothing struct{}

// Verify checks the state folder.
func (d *Desk) Verify(ctx context.Context, _ Nothing) ([]backup.Problem, error) {
	problems, err := d.Host.Verify(ctx)
	return append([]backup.Problem{}, problems...), err
}

// Backup writes an archive of the state folder.
func (d *Desk) Backup(ctx context.Context, w io.Writer) ([]backup.Problem, error) {
	return d.Host.Backup(ctx, w)
}
